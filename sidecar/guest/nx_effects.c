/* $emit, $view, $log, console, $time and crypto: calls that leave an effect, or ask the host for something small. */

static JSValue nx_send_event(JSContext *ctx, const char *name, size_t name_len, JSValueConst payload)
{
    NxBuf bytes = { 0 };
    JSValue ret = JS_UNDEFINED;
    int32_t result;

    if (nx_encode(ctx, &bytes, payload, NX_EFFECT_DEPTH) || nx_has_ended(ctx)) {
        nx_buf_free(ctx, &bytes);
        return JS_EXCEPTION;
    }
    result = __nexus_emit_event((const uint8_t *)name, (uint32_t)name_len, bytes.p, bytes.len);
    if (result < 0)
        ret = nx_throw_host(ctx, result);
    nx_buf_free(ctx, &bytes);
    return ret;
}

static JSValue nx_emit(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    const char *name;
    size_t len;
    JSValue ret;

    (void)this_val;
    if (argc < 1 || !JS_IsString(argv[0]))
        return nx_throw(ctx, JS_TYPE_ERROR, "$emit needs the name of an event");
    name = JS_ToCStringLen(ctx, &len, argv[0]);
    if (!name)
        return JS_EXCEPTION;
    ret = nx_send_event(ctx, name, len, argc > 1 ? argv[1] : JS_UNDEFINED);
    JS_FreeCString(ctx, name);
    return ret;
}

static JSValue nx_emit_toast(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic)
{
    JSValue payload = JS_NewObject(ctx), ret;

    (void)this_val, (void)magic;
    if (JS_IsException(payload))
        return payload;
    if (nx_define_str(ctx, payload, "message", argc > 0 ? js_dup(argv[0]) : JS_NULL, JS_PROP_C_W_E) < 0 ||
        nx_define_str(ctx, payload, "level", argc > 1 && !JS_IsUndefined(argv[1]) ? js_dup(argv[1]) : JS_NewString(ctx, "info"),
                      JS_PROP_C_W_E) < 0)
        ret = JS_EXCEPTION;
    else
        ret = nx_send_event(ctx, "toast", 5, payload);
    JS_FreeValue(ctx, payload);
    return ret;
}

/* ---- $view ---- */

enum { NX_SET_FILTER, NX_SCROLL_TO, NX_FOCUS, NX_COMMAND };

static JSValue nx_view_call(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int which)
{
    static const char *const names[] = { "setFilter", "scrollTo", "focus", "command" };
    static const char *const fields[] = { "value", "position" };
    JSValueConst second = argc > 1 ? argv[1] : JS_UNDEFINED;
    NxBuf b = { 0 };
    JSValue ret;
    int failed;

    (void)this_val;
    if (argc < 1 || !JS_IsString(argv[0]))
        return nx_throw_needs(ctx, "$view.", names[which], " needs the id of a view");
    if (which == NX_COMMAND && !JS_IsString(second))
        return nx_throw(ctx, JS_TYPE_ERROR, "$view.command needs the name of a command");
    failed = nx_put_array_header(ctx, &b, 3) || nx_put_js_string(ctx, &b, argv[0]);
    if (which == NX_COMMAND)
        failed = failed || nx_put_js_string(ctx, &b, second) || nx_encode(ctx, &b, argc > 2 ? argv[2] : JS_UNDEFINED, NX_EFFECT_DEPTH);
    else
        failed = failed || nx_put_str(ctx, &b, names[which], (uint32_t)strlen(names[which])) ||
                 nx_put_map_header(ctx, &b, which == NX_FOCUS ? 0 : 1) ||
                 (which != NX_FOCUS && (nx_put_str(ctx, &b, fields[which], (uint32_t)strlen(fields[which])) ||
                                       nx_encode(ctx, &b, second, NX_EFFECT_DEPTH + 1)));
    ret = JS_EXCEPTION;
    if (!failed && !nx_has_ended(ctx)) {
        int32_t result = __nexus_view_command(b.p, b.len);
        ret = result < 0 ? nx_throw_host(ctx, result) : JS_UNDEFINED;
    }
    nx_buf_free(ctx, &b);
    return ret;
}

/* ---- $log, console ---- */

/* One argument of a log call as text: strings as they are, errors with their stack, objects as JSON where they have it. */
static JSValue nx_log_text(JSContext *ctx, JSValueConst v)
{
    JSValue text, stack;

    if (JS_IsString(v))
        return js_dup(v);
    if (JS_IsSymbol(v))
        return JS_NewString(ctx, "Symbol()");
    if (!JS_IsObject(v))
        return JS_ToString(ctx, v);
    if (JS_IsFunction(ctx, v))
        return JS_NewString(ctx, "[function]");
    if (JS_IsError(v)) {
        text = JS_ToString(ctx, v);
        stack = JS_IsException(text) ? JS_UNDEFINED : JS_GetProperty(ctx, v, JS_ATOM_stack);
        if (JS_IsString(stack)) {
            text = JS_ConcatString(ctx, text, JS_NewString(ctx, "\n"));
            return JS_ConcatString(ctx, text, stack);
        }
        if (JS_IsException(stack) && !nx_swallow(ctx)) {
            JS_FreeValue(ctx, text);
            return JS_EXCEPTION;
        }
        JS_FreeValue(ctx, stack);
    } else {
        text = JS_JSONStringify(ctx, v, JS_UNDEFINED, JS_UNDEFINED);
    }
    if (JS_IsString(text))
        return text;
    if (JS_IsException(text) && !nx_swallow(ctx))
        return JS_EXCEPTION;
    JS_FreeValue(ctx, text);
    return JS_NewString(ctx, "[object]"); /* cyclic, its toJSON threw, or it has no JSON */
}

enum { NX_LOG_DEBUG, NX_LOG_INFO, NX_LOG_WARN, NX_LOG_ERROR };

static JSValue nx_log(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int level)
{
    NxBuf line = { 0 };
    int i, failed = 0;
    int32_t result = 0;

    (void)this_val;
    for (i = 0; i < argc && !failed; i++) {
        JSValue text = nx_log_text(ctx, argv[i]);
        size_t len;
        const char *s = JS_IsException(text) ? NULL : JS_ToCStringLen(ctx, &len, text);
        failed = !s || (i > 0 && nx_put(ctx, &line, " ", 1)) || nx_put(ctx, &line, s, (uint32_t)len);
        JS_FreeCString(ctx, s);
        JS_FreeValue(ctx, text);
    }
    failed = failed || nx_has_ended(ctx);
    if (!failed) {
        nx_mend_surrogates(line.p, line.len);
        result = __nexus_log((uint32_t)level, line.p, line.len);
    }
    nx_buf_free(ctx, &line);
    if (failed)
        return JS_EXCEPTION;
    return result < 0 ? nx_throw_host(ctx, result) : JS_UNDEFINED;
}

/* -1: an error is pending that ends the execution. */
static int nx_log_unhandled(JSContext *ctx, JSValueConst reason)
{
    JSValue line, text, ret = JS_EXCEPTION;

    nx.no_calls++;
    text = nx_log_text(ctx, reason);
    nx.no_calls--;
    line = JS_IsException(text) ? text : JS_ConcatString(ctx, JS_NewString(ctx, "unhandled promise rejection: "), text);
    if (!JS_IsException(line))
        ret = nx_log(ctx, JS_UNDEFINED, 1, vc(&line), NX_LOG_ERROR);
    JS_FreeValue(ctx, line);
    return JS_IsException(ret) && !nx_swallow(ctx) ? -1 : 0;
}

/* ---- $time, crypto ---- */

static JSValue nx_time_now(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic)
{
    (void)this_val, (void)argc, (void)argv, (void)magic;
    return JS_NewFloat64(ctx, floor(nx_time_ms()));
}

static JSValue nx_random_values(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic)
{
    uint8_t *data;
    uint32_t len;
    int32_t result;
    int class_id;

    (void)this_val, (void)magic;
    class_id = argc > 0 && JS_IsObject(argv[0]) ? JS_VALUE_GET_OBJ(argv[0])->class_id : 0;
    if (class_id < JS_CLASS_UINT8C_ARRAY || class_id > JS_CLASS_BIG_UINT64_ARRAY)
        return nx_throw(ctx, JS_TYPE_ERROR, "crypto.getRandomValues needs an integer typed array");
    if (nx_has_ended(ctx))
        return JS_EXCEPTION;
    if (nx_bytes_of(JS_VALUE_GET_OBJ(argv[0]), &data, &len) != NX_WITHIN)
        return nx_throw(ctx, JS_TYPE_ERROR, "the typed array is out of the bounds of its buffer");
    if (typed_array_is_immutable(JS_VALUE_GET_OBJ(argv[0])))
        return JS_ThrowTypeErrorImmutableArrayBuffer(ctx);
    if (len > 65536)
        return nx_throw(ctx, JS_RANGE_ERROR, "crypto.getRandomValues gives at most 65536 bytes at a time");
    result = __nexus_random_bytes(data, len);
    return result < 0 ? nx_throw_host(ctx, result) : js_dup(argv[0]);
}

/* ---- set-up ---- */

static int nx_init_effects(JSContext *ctx)
{
    static const NxMethod emit[] = { { "toast", nx_emit_toast, 2, 0 } };
    static const NxMethod view[] = {
        { "setFilter", nx_view_call, 2, NX_SET_FILTER },
        { "scrollTo", nx_view_call, 2, NX_SCROLL_TO },
        { "focus", nx_view_call, 1, NX_FOCUS },
        { "command", nx_view_call, 3, NX_COMMAND },
    };
    static const NxMethod log[] = {
        { "log", nx_log, 1, NX_LOG_INFO },   { "debug", nx_log, 1, NX_LOG_DEBUG }, { "info", nx_log, 1, NX_LOG_INFO },
        { "warn", nx_log, 1, NX_LOG_WARN }, { "error", nx_log, 1, NX_LOG_ERROR },
    };
    static const NxMethod time[] = { { "now", nx_time_now, 0, 0 } };
    static const NxMethod crypto[] = { { "getRandomValues", nx_random_values, 1, 0 } };
    JSValue as_function = JS_NewCFunctionMagic(ctx, nx_log, "$log", 1, JS_CFUNC_generic_magic, NX_LOG_INFO);

    return nx_define_global_of(ctx, "$emit", JS_NewCFunction(ctx, nx_emit, "$emit", 2), emit, countof(emit)) ||
                   nx_define_global_of(ctx, "$view", JS_NewObject(ctx), view, countof(view)) ||
                   nx_define_global_of(ctx, "$log", as_function, log, countof(log)) ||
                   nx_define_global_of(ctx, "console", JS_NewObject(ctx), log, countof(log)) ||
                   nx_define_global_of(ctx, "$time", JS_NewObject(ctx), time, countof(time)) ||
                   nx_define_global_of(ctx, "crypto", JS_NewObject(ctx), crypto, countof(crypto))
               ? -1
               : 0;
}
