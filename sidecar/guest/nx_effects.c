/* $emit, $view, $log, console, $time and crypto: calls that leave an effect, or ask the host for something small. */

static JSValue nx_send_event(JSContext *ctx, const char *name, size_t name_len, JSValueConst payload)
{
    NxBuf bytes = { 0 };
    JSValue ret = JS_UNDEFINED;
    int32_t result;

    if (nx_encode(ctx, &bytes, payload, NX_EFFECT_DEPTH)) {
        nx_buf_free(ctx, &bytes);
        return JS_EXCEPTION;
    }
    result = __nexus_emit_event((const uint8_t *)name, (uint32_t)name_len, bytes.p, bytes.len);
    if (result < 0)
        ret = nx_throw_host(ctx, result, "events:emit:", name, name_len);
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
        return JS_ThrowTypeError(ctx, "$emit needs the name of an event");
    name = JS_ToCStringLen(ctx, &len, argv[0]);
    if (!name)
        return JS_EXCEPTION;
    ret = nx_send_event(ctx, name, len, argc > 1 ? argv[1] : JS_UNDEFINED);
    JS_FreeCString(ctx, name);
    return ret;
}

static JSValue nx_emit_toast(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    JSValue payload = JS_NewObject(ctx), ret;

    (void)this_val;
    if (JS_IsException(payload))
        return payload;
    JS_DefinePropertyValueStr(ctx, payload, "message", argc > 0 ? js_dup(argv[0]) : JS_NULL, JS_PROP_C_W_E);
    JS_DefinePropertyValueStr(ctx, payload, "level", argc > 1 && !JS_IsUndefined(argv[1]) ? js_dup(argv[1]) : JS_NewString(ctx, "info"),
                              JS_PROP_C_W_E);
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
    const char *id = NULL;
    size_t id_len;
    int32_t result;
    int failed;

    (void)this_val;
    if (argc < 1 || !JS_IsString(argv[0]))
        return JS_ThrowTypeError(ctx, "$view.%s needs the id of a view", names[which]);
    if (which == NX_COMMAND && !JS_IsString(second))
        return JS_ThrowTypeError(ctx, "$view.command needs the name of a command");
    failed = nx_put_array_header(ctx, &b, 3) || nx_put_js_string(ctx, &b, argv[0]);
    if (which == NX_COMMAND)
        failed = failed || nx_put_js_string(ctx, &b, second) || nx_encode(ctx, &b, argc > 2 ? argv[2] : JS_UNDEFINED, NX_EFFECT_DEPTH);
    else
        failed = failed || nx_put_str(ctx, &b, names[which], (uint32_t)strlen(names[which])) ||
                 nx_put_map_header(ctx, &b, which == NX_FOCUS ? 0 : 1) ||
                 (which != NX_FOCUS && (nx_put_str(ctx, &b, fields[which], (uint32_t)strlen(fields[which])) ||
                                       nx_encode(ctx, &b, second, NX_EFFECT_DEPTH + 1)));
    if (!failed)
        id = JS_ToCStringLen(ctx, &id_len, argv[0]);
    if (!id) {
        nx_buf_free(ctx, &b);
        return JS_EXCEPTION;
    }
    result = __nexus_view_command(b.p, b.len);
    nx_buf_free(ctx, &b);
    JSValue ret = result < 0 ? nx_throw_host(ctx, result, "view:update:", id, id_len) : JS_UNDEFINED;
    JS_FreeCString(ctx, id);
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
        stack = JS_IsException(text) ? JS_EXCEPTION : JS_GetPropertyStr(ctx, v, "stack");
        if (JS_IsString(stack)) {
            text = JS_ConcatString(ctx, text, JS_NewString(ctx, "\n"));
            return JS_ConcatString(ctx, text, stack);
        }
        JS_FreeValue(ctx, stack);
    } else {
        text = JS_JSONStringify(ctx, v, JS_UNDEFINED, JS_UNDEFINED);
    }
    if (JS_IsString(text))
        return text;
    JS_FreeValue(ctx, text);
    if (JS_HasException(ctx) && JS_IsUncatchableError(ctx->rt->current_exception))
        return JS_EXCEPTION;
    nx_drop_exception(ctx);
    return JS_NewString(ctx, "[object]"); /* cyclic, or its toJSON threw */
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
    if (!failed) {
        nx_mend_surrogates(line.p, line.len);
        result = __nexus_log((uint32_t)level, line.p, line.len);
    }
    nx_buf_free(ctx, &line);
    if (failed)
        return JS_EXCEPTION;
    return result < 0 ? nx_throw_host(ctx, result, "", "$log", 4) : JS_UNDEFINED;
}

static void nx_log_unhandled(JSContext *ctx, JSValueConst reason)
{
    JSValue text, line, ret;

    nx.no_calls++;
    text = nx_log_text(ctx, reason);
    nx.no_calls--;
    if (JS_IsException(text)) {
        nx_drop_exception(ctx);
        return;
    }
    line = JS_ConcatString(ctx, JS_NewString(ctx, "unhandled promise rejection: "), text);
    ret = nx_log(ctx, JS_UNDEFINED, 1, vc(&line), NX_LOG_ERROR);
    if (JS_IsException(ret))
        nx_drop_exception(ctx);
    JS_FreeValue(ctx, line);
}

/* ---- $time, crypto ---- */

static JSValue nx_time_now(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    (void)this_val, (void)argc, (void)argv;
    return JS_NewFloat64(ctx, floor(nx_time_ms()));
}

static JSValue nx_random_values(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    size_t offset, length, size;
    JSValue buffer;
    uint8_t *data;
    int32_t result = 0;
    int class_id;

    (void)this_val;
    class_id = argc > 0 && JS_IsObject(argv[0]) ? JS_VALUE_GET_OBJ(argv[0])->class_id : 0;
    if (class_id < JS_CLASS_UINT8C_ARRAY || class_id > JS_CLASS_BIG_UINT64_ARRAY)
        return JS_ThrowTypeError(ctx, "crypto.getRandomValues needs an integer typed array");
    buffer = JS_GetTypedArrayBuffer(ctx, argv[0], &offset, &length, NULL);
    if (JS_IsException(buffer))
        return buffer;
    data = JS_GetArrayBuffer(ctx, &size, buffer);
    JS_FreeValue(ctx, buffer); /* argv[0] keeps it alive */
    if (length > 65536)
        return JS_ThrowRangeError(ctx, "crypto.getRandomValues gives at most 65536 bytes at a time");
    if (offset > size || length > size - offset)
        return JS_ThrowTypeError(ctx, "the typed array is out of the bounds of its buffer");
    result = __nexus_random_bytes(data + offset, (uint32_t)length);
    return result < 0 ? nx_throw_host(ctx, result, "crypto:random", "", 0) : js_dup(argv[0]);
}

/* ---- set-up ---- */

static void nx_define_method(JSContext *ctx, JSValueConst obj, const char *name, JSCFunctionMagic *f, int length, int magic)
{
    JS_DefinePropertyValueStr(ctx, obj, name, JS_NewCFunctionMagic(ctx, f, name, length, JS_CFUNC_generic_magic, magic), JS_PROP_ENUMERABLE);
}

static void nx_define_log_methods(JSContext *ctx, JSValueConst obj)
{
    nx_define_method(ctx, obj, "log", nx_log, 1, NX_LOG_INFO);
    nx_define_method(ctx, obj, "debug", nx_log, 1, NX_LOG_DEBUG);
    nx_define_method(ctx, obj, "info", nx_log, 1, NX_LOG_INFO);
    nx_define_method(ctx, obj, "warn", nx_log, 1, NX_LOG_WARN);
    nx_define_method(ctx, obj, "error", nx_log, 1, NX_LOG_ERROR);
}

static void nx_define_global(JSContext *ctx, const char *name, JSValue v)
{
    JS_DefinePropertyValueStr(ctx, ctx->global_obj, name, v, JS_PROP_ENUMERABLE);
}

static int nx_init_effects(JSContext *ctx)
{
    JSValue emit = JS_NewCFunction(ctx, nx_emit, "$emit", 2);
    JSValue view = JS_NewObject(ctx);
    JSValue log = JS_NewCFunctionMagic(ctx, nx_log, "$log", 1, JS_CFUNC_generic_magic, NX_LOG_INFO);
    JSValue console = JS_NewObject(ctx);
    JSValue time = JS_NewObject(ctx);
    JSValue crypto = JS_NewObject(ctx);

    JS_DefinePropertyValueStr(ctx, emit, "toast", JS_NewCFunction(ctx, nx_emit_toast, "toast", 2), JS_PROP_ENUMERABLE);
    nx_define_global(ctx, "$emit", emit);
    nx_define_method(ctx, view, "setFilter", nx_view_call, 2, NX_SET_FILTER);
    nx_define_method(ctx, view, "scrollTo", nx_view_call, 2, NX_SCROLL_TO);
    nx_define_method(ctx, view, "focus", nx_view_call, 1, NX_FOCUS);
    nx_define_method(ctx, view, "command", nx_view_call, 3, NX_COMMAND);
    nx_define_global(ctx, "$view", view);
    nx_define_log_methods(ctx, log);
    nx_define_global(ctx, "$log", log);
    nx_define_log_methods(ctx, console);
    nx_define_global(ctx, "console", console);
    JS_DefinePropertyValueStr(ctx, time, "now", JS_NewCFunction(ctx, nx_time_now, "now", 0), JS_PROP_ENUMERABLE);
    nx_define_global(ctx, "$time", time);
    JS_DefinePropertyValueStr(ctx, crypto, "getRandomValues", JS_NewCFunction(ctx, nx_random_values, "getRandomValues", 1), JS_PROP_ENUMERABLE);
    nx_define_global(ctx, "crypto", crypto);
    return JS_HasException(ctx) ? -1 : 0;
}
