/* $ext: a call is handed to the host, and its answer comes with nx_resume. In promise style it returns a promise, and the
 * segment ends when nothing more can happen without an answer; in stack style the segment ends in the call, which returns the
 * answer itself. Nothing of a call lives outside of linear memory. */

/* Gives an error this place: that of the frame which has called the shim. Neither Error.prepareStackTrace nor
 * Error.stackTraceLimit has a part in it: nobody has seen the error yet, and making a call runs no code but what its arguments
 * run. */
static void nx_place_here(JSContext *ctx, JSValueConst error)
{
    JSValue prepare = ctx->error_prepare_stack, limit = ctx->error_stack_trace_limit;

    ctx->error_prepare_stack = JS_UNDEFINED;
    ctx->error_stack_trace_limit = JS_NewInt32(ctx, 10);
    build_backtrace(ctx, error, JS_UNDEFINED, NULL, 0, 0, JS_BACKTRACE_FLAG_SKIP_FIRST_LEVEL);
    ctx->error_prepare_stack = prepare;
    ctx->error_stack_trace_limit = limit;
}

/* An Error of this place. */
static JSValue nx_new_error_here(JSContext *ctx)
{
    JSValue error = JS_NewObjectClass(ctx, JS_CLASS_ERROR);

    if (!JS_IsException(error))
        nx_place_here(ctx, error);
    return error;
}

static void nx_free_call(JSContext *ctx, const NxCall *call)
{
    JS_FreeValue(ctx, call->resolve);
    JS_FreeValue(ctx, call->reject);
    JS_FreeValue(ctx, call->error);
    JS_FreeAtom(ctx, call->extension);
    JS_FreeAtom(ctx, call->method);
}

/* What the host's refusal of a call becomes in the handler. The host believes a code for the very call that it has refused, which
 * the error therefore names. */
static void nx_throw_refused_call(JSContext *ctx, int32_t result, JSValueConst name, JSValueConst method)
{
    JSValue error;

    if (result != NX_NOT_FOUND && result != NX_NO_METHOD) {
        nx_throw_host(ctx, result < 0 ? result : NX_INTERNAL);
        return;
    }
    nx_throw_refused(ctx, JS_PLAIN_ERROR);
    nx_add_code(ctx, result == NX_NOT_FOUND ? "EXTENSION_NOT_FOUND" : "METHOD_NOT_FOUND", nx.atom_extension, js_dup(name));
    error = JS_GetException(ctx);
    if (JS_IsError(error) && nx_define(ctx, error, nx.atom_method, js_dup(method), JS_PROP_C_W_E) < 0)
        JS_FreeValue(ctx, error); /* and the want of memory is pending */
    else
        JS_Throw(ctx, error);
}

/* Room for one more call in the table. */
static int nx_reserve_call(JSContext *ctx)
{
    uint32_t capacity = nx.call_capacity ? nx.call_capacity * 2 : 4;
    NxCall *calls;

    if (nx.call_count < nx.call_capacity)
        return 0;
    calls = js_realloc(ctx, nx.calls, capacity * sizeof(*calls));
    if (!calls)
        return -1;
    nx.calls = calls;
    nx.call_capacity = capacity;
    return 0;
}

/* Hands a call to the host; takes what `call` holds. Not 0: it was refused, the exception is pending. */
static int nx_issue_call(JSContext *ctx, int argc, JSValueConst *argv, JSValueConst *data, NxCall call)
{
    const char *name = NULL, *method = NULL;
    size_t name_len, method_len;
    NxBuf args = { 0 };
    int32_t result;
    int i;

    if (nx.no_calls) {
        nx_throw(ctx, JS_TYPE_ERROR, "no extension can be called here");
        goto fail;
    }
    if (nx_put_array_header(ctx, &args, (uint32_t)argc))
        goto fail;
    for (i = 0; i < argc; i++)
        if (nx_encode(ctx, &args, argv[i], 1))
            goto fail;
#ifdef NX_STACK_STYLE
    /* the segment ends in this call: what it has written comes before it */
    if (nx_flush_nested_writes(ctx))
        goto fail;
#endif
    /* from here on no code runs: nothing comes between the count, the host and the table */
    name = JS_ToCStringLen(ctx, &name_len, data[0]);
    method = JS_ToCStringLen(ctx, &method_len, data[1]);
    if (!name || !method)
        goto fail;
    call.error = nx_new_error_here(ctx);
    call.extension = JS_ValueToAtom(ctx, data[0]);
    call.method = JS_ValueToAtom(ctx, data[1]);
    if (JS_IsException(call.error) || call.extension == JS_ATOM_NULL || call.method == JS_ATOM_NULL || nx_reserve_call(ctx) ||
        nx_has_ended(ctx))
        goto fail;
    if (nx.outstanding >= NX_MAX_OUTSTANDING) {
        nx_throw(ctx, JS_RANGE_ERROR, "more than " NX_TEXT(NX_MAX_OUTSTANDING) " extension calls are outstanding");
        goto fail;
    }
    result = __nexus_ext_call((const uint8_t *)name, (uint32_t)name_len, (const uint8_t *)method, (uint32_t)method_len, args.p, args.len);
    if (result < 0 || (uint32_t)result != nx.call_count) {
        nx_throw_refused_call(ctx, result, data[0], data[1]);
        goto fail;
    }
    nx.calls[nx.call_count++] = call;
    nx.outstanding++;
    nx.new_calls++;
    nx_buf_free(ctx, &args);
    JS_FreeCString(ctx, name);
    JS_FreeCString(ctx, method);
    return 0;
fail:
    nx_free_call(ctx, &call);
    nx_buf_free(ctx, &args);
    JS_FreeCString(ctx, name);
    JS_FreeCString(ctx, method);
    return -1;
}

/* Fills in the Error with which a failed extension call ends: told is the {message, name?, code?} that the client sent, of
 * which only what it holds itself is read. -1: exception. */
static int nx_fill_extension_error(JSContext *ctx, const NxCall *call, JSValueConst told)
{
    const JSAtom fields[] = { JS_ATOM_message, JS_ATOM_name, nx.atom_code };
    size_t i;

    JS_VALUE_GET_OBJ(call->error)->nx_is_refusal = true;
    for (i = 0; i < countof(fields); i++) {
        JSValueConst v = nx_own_value(told, fields[i]);
        int flags = fields[i] == nx.atom_code ? JS_PROP_C_W_E : JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE;
        if (JS_IsString(v) && nx_define(ctx, call->error, fields[i], js_dup(v), flags) < 0)
            return -1;
    }
    return nx_define(ctx, call->error, nx.atom_extension, JS_AtomToString(ctx, call->extension), JS_PROP_C_W_E) < 0 ||
                   nx_define(ctx, call->error, nx.atom_method, JS_AtomToString(ctx, call->method), JS_PROP_C_W_E) < 0
               ? -1
               : 0;
}

/* The answer that nx_resume brought, as the value to return or the one to throw; *ok says which. The call is over, and what
 * the table held of it is the caller's. Runs no code. */
static JSValue nx_take_answer(JSContext *ctx, uint32_t number, NxCall *call, bool *ok)
{
    JSValue value = JS_UNDEFINED, error;

    *call = nx.calls[number];
    nx.calls[number] = (NxCall){ JS_UNDEFINED, JS_UNDEFINED, JS_UNDEFINED, JS_ATOM_NULL, JS_ATOM_NULL, true };
    nx.outstanding--;
    *ok = nx.answer_ok;
    if (nx.answer_len) {
        value = nx_decode_payload(ctx, nx.answer, nx.answer_len);
        if (nx.answer < nx_inbox || nx.answer >= nx_inbox + NX_INBOX_BYTES)
            free((void *)nx.answer);
    }
    nx.answer = NULL, nx.answer_len = 0;
    if (JS_IsException(value)) {
        /* it does not fit into the handler's memory: the call fails, and the handler may catch that */
        value = JS_GetException(ctx);
        *ok = false;
    }
    if (*ok)
        return value;
    error = nx_fill_extension_error(ctx, call, value) ? JS_GetException(ctx) : js_dup(call->error);
    JS_FreeValue(ctx, value);
    return error;
}

static const NxCall nx_no_call = { JS_UNDEFINED, JS_UNDEFINED, JS_UNDEFINED, JS_ATOM_NULL, JS_ATOM_NULL, false };

#ifdef NX_STACK_STYLE

static JSValue nx_ext_call(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValue value;
    NxCall call;
    bool ok;

    (void)this_val, (void)magic;
    if (nx_issue_call(ctx, argc, argv, data, nx_no_call))
        return JS_EXCEPTION;
    nx_ni_suspend();
    value = nx_take_answer(ctx, nx.call_count - 1, &call, &ok);
    nx_free_call(ctx, &call);
    return ok ? value : JS_Throw(ctx, value);
}

#else

/* A call that was refused is a rejected promise, whatever it was refused for; only the end of the execution is not. -1: that is
 * pending. */
static int nx_reject_refused(JSContext *ctx, JSValueConst reject)
{
    JSValue reason, ret;

    if (nx_ended || JS_IsUncatchableError(ctx->rt->current_exception))
        return -1;
    reason = JS_GetException(ctx);
    if (needs_backtrace(reason))
        nx_place_here(ctx, reason);
    ret = JS_Call(ctx, reject, JS_UNDEFINED, 1, vc(&reason));
    JS_FreeValue(ctx, reason);
    if (JS_IsException(ret))
        return -1;
    JS_FreeValue(ctx, ret);
    return 0;
}

static JSValue nx_ext_call(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValue resolvers[2], reject, promise = JS_NewPromiseCapability(ctx, resolvers);
    NxCall call = nx_no_call;
    bool failed;

    (void)this_val, (void)magic;
    if (JS_IsException(promise))
        return promise;
    call.resolve = resolvers[0];
    call.reject = resolvers[1];
    reject = js_dup(call.reject);
    failed = nx_issue_call(ctx, argc, argv, data, call) && nx_reject_refused(ctx, reject);
    JS_FreeValue(ctx, reject);
    if (failed) {
        JS_FreeValue(ctx, promise);
        return JS_EXCEPTION;
    }
    return promise;
}

/* -1: exception; the promise of the call is not settled */
static int nx_settle_call(JSContext *ctx, uint32_t number)
{
    JSValue ret, value;
    NxCall call;
    bool ok;

    value = nx_take_answer(ctx, number, &call, &ok);
    /* resolving a promise asks the value for its `then`, which may run code */
    ret = JS_Call(ctx, ok ? call.resolve : call.reject, JS_UNDEFINED, 1, vc(&value));
    JS_FreeValue(ctx, value);
    nx_free_call(ctx, &call);
    if (JS_IsException(ret))
        return -1;
    JS_FreeValue(ctx, ret);
    return 0;
}

#endif

/* ---- $ext and $ext.name ---- */

/* The language asks every object that is awaited or returned for these; they are never extensions or methods. */
static bool nx_is_never_extension(JSContext *ctx, JSAtom atom)
{
    return JS_AtomGetKind(ctx, atom) != JS_ATOM_KIND_STRING || atom == JS_ATOM_then || atom == JS_ATOM_toJSON;
}

static JSValue nx_ext_name_get(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst receiver)
{
    JSValue data[2], f;

    (void)receiver;
    if (nx_is_never_extension(ctx, atom))
        return atom == JS_ATOM_Symbol_toPrimitive ? js_dup(nx.ext_text) : JS_UNDEFINED;
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
    if (nx_is_never_extension(ctx, atom))
        return atom == JS_ATOM_Symbol_toPrimitive ? js_dup(nx.ext_text) : JS_UNDEFINED;
    if (find_own_property(&pr, JS_VALUE_GET_OBJ(nx.ext_methods), atom) || find_own_property(&pr, JS_VALUE_GET_OBJ(nx.ext_names), atom))
        return js_dup(pr->u.value);
    v = JS_NewObjectProtoClass(ctx, JS_NULL, nx.ext_name_class);
    if (JS_IsException(v))
        return v;
    name = js_malloc(ctx, sizeof(*name));
    if (!name)
        goto fail;
    *name = JS_AtomToString(ctx, atom);
    if (JS_IsException(*name)) {
        js_free(ctx, name);
        goto fail;
    }
    JS_SetOpaque(v, name);
    if (JS_DefinePropertyValue(ctx, nx.ext_names, atom, js_dup(v), JS_PROP_C_W_E) < 0)
        goto fail;
    return v;
fail:
    JS_FreeValue(ctx, v);
    return JS_EXCEPTION;
}

/* As text: what was written. Without this the language would ask for `toString`, which is the name of an extension. */
static JSValue nx_ext_as_text(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    JSValue *name = JS_GetOpaque(this_val, nx.ext_name_class);

    (void)argc, (void)argv;
    return name ? JS_ConcatString(ctx, JS_NewString(ctx, "$ext."), js_dup(*name)) : JS_NewString(ctx, "$ext");
}

static int nx_ext_refuse_set(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst receiver, int flags)
{
    (void)obj, (void)atom, (void)value, (void)receiver, (void)flags;
    nx_throw(ctx, JS_TYPE_ERROR, "$ext cannot be changed");
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
            return nx_throw(ctx, JS_TYPE_ERROR, "the name of an extension is needed");
        name = JS_ToCStringLen(ctx, &name_len, argv[0]);
        if (!name)
            return JS_EXCEPTION;
    }
    if (nx_has_ended(ctx)) {
        JS_FreeCString(ctx, name);
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
        ret = nx_throw_host(ctx, got);
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
    static const NxMethod methods[] = {
        { "exists", nx_ext_query, 1, 0 },
        { "methods", nx_ext_query, 1, 1 },
        { "list", nx_ext_query, 0, 2 },
    };

    JS_NewClassID(nx.rt, &nx.ext_class);
    JS_NewClassID(nx.rt, &nx.ext_name_class);
    if (JS_NewClass(nx.rt, nx.ext_class, &ext_def) || JS_NewClass(nx.rt, nx.ext_name_class, &name_def))
        return -1;
    nx.ext_methods = JS_NewObjectProto(ctx, JS_NULL);
    nx.ext_names = JS_NewObjectProto(ctx, JS_NULL);
    nx.ext_text = JS_NewCFunction(ctx, nx_ext_as_text, "[Symbol.toPrimitive]", 1);
    if (JS_IsException(nx.ext_methods) || JS_IsException(nx.ext_names) || JS_IsException(nx.ext_text) ||
        nx_define_methods(ctx, nx.ext_methods, methods, countof(methods)))
        return -1;
    return nx_define_global(ctx, "$ext", JS_NewObjectProtoClass(ctx, JS_NULL, nx.ext_class));
}
