/* $ext: a call is handed to the host, and its answer comes with nx_resume. In promise style it returns a promise, and the
 * segment ends when nothing more can happen without an answer; in stack style the segment ends in the call, which returns the
 * answer itself. Nothing of a call lives outside of linear memory. */

/* Hands a call to the host; takes resolve and reject over. Not 0: it was refused, the exception is pending. */
static int nx_issue_call(JSContext *ctx, int argc, JSValueConst *argv, JSValueConst *data, JSValue resolve, JSValue reject)
{
    JSValue error = JS_UNDEFINED;
    const char *name = NULL, *method = NULL;
    size_t name_len, method_len;
    NxBuf args = { 0 };
    int32_t call;
    int i;

    if (nx.no_calls) {
        JS_ThrowTypeError(ctx, "no extension can be called here");
        goto fail;
    }
    if (nx.outstanding >= NX_MAX_OUTSTANDING) {
        JS_ThrowRangeError(ctx, "more than %d extension calls are outstanding", NX_MAX_OUTSTANDING);
        goto fail;
    }
    if (nx_put_array_header(ctx, &args, (uint32_t)argc))
        goto fail;
    for (i = 0; i < argc; i++)
        if (nx_encode(ctx, &args, argv[i], 1))
            goto fail;
    name = JS_ToCStringLen(ctx, &name_len, data[0]);
    method = JS_ToCStringLen(ctx, &method_len, data[1]);
    if (!name || !method)
        goto fail;
    error = JS_NewError(ctx);
    if (JS_IsException(error))
        goto fail;
#ifdef NX_STACK_STYLE
    /* the segment ends in this call: what it has written comes before it */
    if (nx_flush_nested_writes(ctx))
        goto fail;
#endif
    /* last of all: encoding and Error.prepareStackTrace may have run the handler's code, and made calls */
    if (nx.call_count == nx.call_capacity) {
        uint32_t capacity = nx.call_capacity ? nx.call_capacity * 2 : 4;
        NxCall *calls = js_realloc(ctx, nx.calls, capacity * sizeof(*calls));
        if (!calls)
            goto fail;
        nx.calls = calls;
        nx.call_capacity = capacity;
    }
    call = __nexus_ext_call((const uint8_t *)name, (uint32_t)name_len, (const uint8_t *)method, (uint32_t)method_len, args.p, args.len);
    if (call < 0 || (uint32_t)call != nx.call_count) {
        if (call == NX_NOT_FOUND) {
            JS_ThrowPlainError(ctx, "there is no extension '%s'", name);
            nx_error_with(ctx, "EXTENSION_NOT_FOUND", nx.atom_extension, name);
        } else if (call == NX_NO_METHOD) {
            JS_ThrowPlainError(ctx, "the extension '%s' has no method '%s'", name, method);
            nx_error_with(ctx, "METHOD_NOT_FOUND", nx.atom_extension, name);
        } else if (call == NX_DENIED) {
            NxBuf token = { 0 };
            if (!nx_put(ctx, &token, name, (uint32_t)name_len) && !nx_put(ctx, &token, ".", 1) &&
                !nx_put(ctx, &token, method, (uint32_t)method_len))
                nx_throw_denied(ctx, "ext:", (const char *)token.p, token.len);
            nx_buf_free(ctx, &token);
        } else {
            nx_throw_host(ctx, call < 0 ? call : NX_INTERNAL, "ext:", name, name_len);
        }
        goto fail;
    }
    nx.calls[nx.call_count++] = (NxCall){ resolve, reject, error, JS_ValueToAtom(ctx, data[0]), JS_ValueToAtom(ctx, data[1]), false };
    nx.outstanding++;
    nx.new_calls++;
    nx_buf_free(ctx, &args);
    JS_FreeCString(ctx, name);
    JS_FreeCString(ctx, method);
    return 0;
fail:
    JS_FreeValue(ctx, error);
    JS_FreeValue(ctx, resolve);
    JS_FreeValue(ctx, reject);
    nx_buf_free(ctx, &args);
    JS_FreeCString(ctx, name);
    JS_FreeCString(ctx, method);
    return -1;
}

/* Fills in the Error with which a failed extension call ends: host_error is the {message, name?, code?} that the client sent. */
static void nx_fill_extension_error(JSContext *ctx, const NxCall *call, JSValueConst host_error)
{
    static const char *const fields[] = { "message", "name", "code" };
    size_t i;

    for (i = 0; i < countof(fields); i++) {
        JSValue v = JS_IsObject(host_error) ? JS_GetPropertyStr(ctx, host_error, fields[i]) : JS_UNDEFINED;
        if (JS_IsString(v))
            JS_DefinePropertyValueStr(ctx, call->error, fields[i], v, i == 2 ? JS_PROP_C_W_E : JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
        else
            JS_FreeValue(ctx, v);
    }
    JS_DefinePropertyValue(ctx, call->error, nx.atom_extension, JS_AtomToString(ctx, call->extension), JS_PROP_C_W_E);
    JS_DefinePropertyValue(ctx, call->error, nx.atom_method, JS_AtomToString(ctx, call->method), JS_PROP_C_W_E);
}

/* The answer that nx_resume brought, as the value to return or the one to throw; *ok says which. The call is over. */
static JSValue nx_take_answer(JSContext *ctx, NxCall *call, bool *ok)
{
    JSValue value = JS_UNDEFINED;

    call->settled = true;
    nx.outstanding--;
    *ok = nx.answer_ok;
    if (nx.answer_len) {
        value = nx_decode_payload(ctx, nx.answer, nx.answer_len);
        if (nx.answer < nx_inbox || nx.answer >= nx_inbox + NX_INBOX_BYTES)
            free((void *)nx.answer);
    }
    if (JS_IsException(value)) {
        /* it does not fit into the handler's memory: the call fails, and the handler may catch that */
        value = JS_GetException(ctx);
        *ok = false;
    }
    if (!*ok) {
        nx_fill_extension_error(ctx, call, value);
        JS_FreeValue(ctx, value);
        value = js_dup(call->error);
    }
    JS_FreeValue(ctx, call->error);
    call->error = JS_UNDEFINED;
    return value;
}

#ifdef NX_STACK_STYLE

static JSValue nx_ext_call(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValue value;
    bool ok;

    (void)this_val, (void)magic;
    if (nx_issue_call(ctx, argc, argv, data, JS_UNDEFINED, JS_UNDEFINED))
        return JS_EXCEPTION;
    nx_ni_suspend();
    value = nx_take_answer(ctx, &nx.calls[nx.call_count - 1], &ok);
    return ok ? value : JS_Throw(ctx, value);
}

#else

static JSValue nx_ext_call(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValue resolvers[2], promise = JS_NewPromiseCapability(ctx, resolvers);

    (void)this_val, (void)magic;
    if (JS_IsException(promise))
        return promise;
    if (nx_issue_call(ctx, argc, argv, data, resolvers[0], resolvers[1])) {
        JS_FreeValue(ctx, promise);
        return JS_EXCEPTION;
    }
    return promise;
}

static void nx_settle_call(JSContext *ctx, NxCall *call)
{
    JSValue resolve = call->resolve, reject = call->reject, ret, value;
    bool ok;

    call->resolve = call->reject = JS_UNDEFINED;
    value = nx_take_answer(ctx, call, &ok);
    ret = JS_Call(ctx, ok ? resolve : reject, JS_UNDEFINED, 1, vc(&value));
    JS_FreeValue(ctx, ret);
    JS_FreeValue(ctx, value);
    JS_FreeValue(ctx, resolve);
    JS_FreeValue(ctx, reject);
}

#endif

/* ---- $ext and $ext.name ---- */

/* The language asks every object that is awaited or returned for these; they are never extensions or methods. */
static bool nx_is_language_name(JSContext *ctx, JSAtom atom)
{
    return JS_AtomGetKind(ctx, atom) != JS_ATOM_KIND_STRING || atom == JS_ATOM_then || atom == JS_ATOM_toJSON;
}

static JSValue nx_ext_name_get(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst receiver)
{
    JSValue data[2], f;

    (void)receiver;
    if (nx_is_language_name(ctx, atom))
        return JS_UNDEFINED;
    data[0] = js_dup(*(JSValue *)JS_GetOpaque(obj, nx.ext_name_class));
    data[1] = JS_AtomToString(ctx, atom);
    if (JS_IsException(data[1])) {
        JS_FreeValue(ctx, data[0]);
        return JS_EXCEPTION;
    }
    f = JS_NewCFunctionData(ctx, nx_ext_call, 0, 0, 2, vc(data));
    JS_FreeValue(ctx, data[0]);
    JS_FreeValue(ctx, data[1]);
    return f;
}

static JSValue nx_ext_get(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst receiver)
{
    JSProperty *pr;
    JSValue v, *name;

    (void)obj, (void)receiver;
    if (nx_is_language_name(ctx, atom))
        return JS_UNDEFINED;
    if (find_own_property(&pr, JS_VALUE_GET_OBJ(nx.ext_methods), atom) || find_own_property(&pr, JS_VALUE_GET_OBJ(nx.ext_names), atom))
        return js_dup(pr->u.value);
    v = JS_NewObjectProtoClass(ctx, JS_NULL, nx.ext_name_class);
    if (JS_IsException(v))
        return v;
    name = js_malloc(ctx, sizeof(*name));
    if (!name)
        goto fail;
    *name = JS_AtomToString(ctx, atom);
    JS_SetOpaque(v, name);
    if (JS_DefinePropertyValue(ctx, nx.ext_names, atom, js_dup(v), JS_PROP_C_W_E) < 0)
        goto fail;
    return v;
fail:
    JS_FreeValue(ctx, v);
    return JS_EXCEPTION;
}

static int nx_ext_refuse_set(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst receiver, int flags)
{
    (void)obj, (void)atom, (void)value, (void)receiver, (void)flags;
    JS_ThrowTypeError(ctx, "$ext cannot be changed");
    return -1;
}

static int nx_ext_refuse_define(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst getter, JSValueConst setter,
                                int flags)
{
    (void)getter, (void)setter;
    return nx_ext_refuse_set(ctx, obj, atom, value, obj, flags);
}

static JSClassExoticMethods nx_ext_exotic = {
    .get_property = nx_ext_get,
    .set_property = nx_ext_refuse_set,
    .define_own_property = nx_ext_refuse_define,
};
static JSClassExoticMethods nx_ext_name_exotic = {
    .get_property = nx_ext_name_get,
    .set_property = nx_ext_refuse_set,
    .define_own_property = nx_ext_refuse_define,
};

static void nx_ext_name_finalizer(JSRuntime *rt, JSValueConst v)
{
    JSValue *name = JS_GetOpaque(v, nx.ext_name_class);
    if (name) {
        JS_FreeValueRT(rt, *name);
        js_free_rt(rt, name);
    }
}

/* exists(name), methods(name), list(): magic is what __nexus_ext_query calls `what` */
static JSValue nx_ext_query(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int what)
{
    const char *name = NULL;
    size_t name_len = 0;
    uint8_t *bytes = NULL;
    int32_t capacity = 0, got;
    JSValue ret;

    (void)this_val;
    if (what != 2) {
        if (argc < 1 || !JS_IsString(argv[0]))
            return JS_ThrowTypeError(ctx, "the name of an extension is needed");
        name = JS_ToCStringLen(ctx, &name_len, argv[0]);
        if (!name)
            return JS_EXCEPTION;
    }
    for (;;) {
        got = __nexus_ext_query((uint32_t)what, (const uint8_t *)name, (uint32_t)name_len, bytes, (uint32_t)capacity);
        if (what == 0 || got <= capacity)
            break;
        js_free(ctx, bytes);
        capacity = got;
        bytes = js_malloc(ctx, (size_t)capacity);
        if (!bytes) {
            JS_FreeCString(ctx, name);
            return JS_EXCEPTION;
        }
    }
    if (got < 0)
        ret = nx_throw_host(ctx, got, "", name ? name : "", name_len);
    else
        ret = what == 0 ? JS_NewBool(ctx, got) : nx_decode_payload(ctx, bytes, (uint32_t)got);
    js_free(ctx, bytes);
    JS_FreeCString(ctx, name);
    return ret;
}

static int nx_init_extensions(JSContext *ctx)
{
    static const JSClassDef ext_def = { "Extensions", .exotic = &nx_ext_exotic };
    static const JSClassDef name_def = { "Extension", .finalizer = nx_ext_name_finalizer, .exotic = &nx_ext_name_exotic };
    JSValue ext;

    JS_NewClassID(nx.rt, &nx.ext_class);
    JS_NewClassID(nx.rt, &nx.ext_name_class);
    if (JS_NewClass(nx.rt, nx.ext_class, &ext_def) || JS_NewClass(nx.rt, nx.ext_name_class, &name_def))
        return -1;
    nx.ext_methods = JS_NewObjectProto(ctx, JS_NULL);
    nx_define_method(ctx, nx.ext_methods, "exists", nx_ext_query, 1, 0);
    nx_define_method(ctx, nx.ext_methods, "methods", nx_ext_query, 1, 1);
    nx_define_method(ctx, nx.ext_methods, "list", nx_ext_query, 0, 2);
    nx.ext_names = JS_NewObjectProto(ctx, JS_NULL);
    ext = JS_NewObjectProtoClass(ctx, JS_NULL, nx.ext_class);
    if (JS_IsException(ext))
        return -1;
    nx_define_global(ctx, "$ext", ext);
    return 0;
}
