/* Errors: the ones that the shim throws, and how an uncaught one is described to the host. */

static JSValue nx_error_with(JSContext *ctx, const char *code, JSAtom field, const char *value)
{
    JSValue err = JS_GetException(ctx);
    JS_DefinePropertyValue(ctx, err, nx.atom_code, JS_NewString(ctx, code), JS_PROP_C_W_E);
    if (field != JS_ATOM_NULL)
        JS_DefinePropertyValue(ctx, err, field, JS_NewString(ctx, value), JS_PROP_C_W_E);
    return JS_Throw(ctx, err);
}

/* token: the capability that is missing, e.g. "state:read:" and "user" */
static JSValue nx_throw_denied(JSContext *ctx, const char *prefix, const char *name)
{
    char token[600];
    snprintf(token, sizeof(token), "%s%s", prefix, name);
    JS_ThrowPlainError(ctx, "this needs the capability '%s', which was not granted", token);
    return nx_error_with(ctx, "PERMISSION_DENIED", nx.atom_capability, token);
}

/* Ends the execution: no catch and no finally of the handler sees it. */
static JSValue nx_throw_uncatchable(JSContext *ctx, const char *message)
{
    JSValue err;
    JS_ThrowInternalError(ctx, "%s", message);
    err = JS_GetException(ctx);
    JS_SetUncatchableError(ctx, err);
    return JS_Throw(ctx, err);
}

/* What a negative result of a host call becomes in the handler. */
static JSValue nx_throw_host(JSContext *ctx, int32_t result, const char *prefix, const char *name)
{
    switch (result) {
    case NX_DENIED:
        return nx_throw_denied(ctx, prefix, name);
    case NX_LIMIT:
        return nx_throw_uncatchable(ctx, "a limit of this execution is used up");
    case NX_INVALID:
        return JS_ThrowTypeError(ctx, "invalid name or value: '%s%.200s'", prefix, name);
    default:
        return nx_throw_uncatchable(ctx, "the host could not answer a call");
    }
}

static void nx_drop_exception(JSContext *ctx)
{
    JS_FreeValue(ctx, JS_GetException(ctx));
}

/* A property of an error as text, without letting a hostile getter or toString end the report. Null: none. */
static JSValue nx_error_text(JSContext *ctx, JSValueConst err, const char *field)
{
    JSValue v = JS_GetPropertyStr(ctx, err, field);
    JSValue s;

    if (JS_IsException(v)) {
        nx_drop_exception(ctx);
        return JS_NULL;
    }
    if (JS_IsUndefined(v) || JS_IsNull(v)) {
        JS_FreeValue(ctx, v);
        return JS_NULL;
    }
    s = JS_ToString(ctx, v);
    JS_FreeValue(ctx, v);
    if (JS_IsException(s)) {
        nx_drop_exception(ctx);
        return JS_NULL;
    }
    return s;
}

static void nx_put_bounded(JSContext *ctx, NxBuf *b, const char *key, JSValueConst text)
{
    size_t len;
    const char *s = JS_ToCStringLen(ctx, &len, text);

    if (!s) {
        nx_drop_exception(ctx);
        s = NULL;
        len = 0;
    }
    if (len > NX_MAX_ERROR_TEXT) {
        len = NX_MAX_ERROR_TEXT;
        while (len > 0 && ((uint8_t)s[len] & 0xc0) == 0x80)
            len--;
    }
    nx_put_str(ctx, b, key, (uint32_t)strlen(key));
    nx_put_str(ctx, b, s ? s : "", (uint32_t)len);
    if (len)
        nx_mend_surrogates(b->p + b->len - len, (uint32_t)len);
    JS_FreeCString(ctx, s);
}

/* Describes err as {name, message, stack, code, capability}, those that it has. */
static void nx_describe_error(JSContext *ctx, NxBuf *b, JSValueConst err)
{
    static const char *const fields[] = { "name", "message", "stack", "code", "capability" };
    uint32_t i, count = 0;
    JSValue texts[countof(fields)];

    if (!JS_IsObject(err)) {
        /* `throw 'text'`: the place is in the context, not in the value */
        JSValue text = JS_ToString(ctx, err);
        bool has_stack = JS_IsString(ctx->error_back_trace);
        if (JS_IsException(text)) {
            nx_drop_exception(ctx);
            text = JS_NewString(ctx, JS_IsSymbol(err) ? "a symbol was thrown" : "");
        }
        nx_put_map_header(ctx, b, has_stack ? 2 : 1);
        nx_put_bounded(ctx, b, "message", text);
        if (has_stack)
            nx_put_bounded(ctx, b, "stack", ctx->error_back_trace);
        JS_FreeValue(ctx, text);
        return;
    }
    for (i = 0; i < countof(fields); i++) {
        texts[i] = nx_error_text(ctx, err, fields[i]);
        if (JS_IsNull(texts[i]) && i == 1) {
            texts[i] = JS_ToString(ctx, err);
            if (JS_IsException(texts[i])) {
                nx_drop_exception(ctx);
                texts[i] = JS_NewString(ctx, "an object was thrown");
            }
        }
        count += JS_IsString(texts[i]);
    }
    nx_put_map_header(ctx, b, count);
    for (i = 0; i < countof(fields); i++) {
        if (JS_IsString(texts[i]))
            nx_put_bounded(ctx, b, fields[i], texts[i]);
        JS_FreeValue(ctx, texts[i]);
    }
}

/* Name or value given by the handler as bytes; free with JS_FreeCString. */
static const char *nx_name(JSContext *ctx, JSValueConst v, size_t *len)
{
    return JS_ToCStringLen(ctx, len, v);
}
