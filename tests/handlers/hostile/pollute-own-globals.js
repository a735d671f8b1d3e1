// row: H8
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (const k of ["$state", "$emit", "$ext", "$view", "$log", "$args", "$time", "console"]) { try { globalThis[k] = { evil: true }; } catch { } try { delete globalThis[k]; } catch { } }
return 1;
