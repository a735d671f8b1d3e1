/* What the shim throws. Nothing here runs the handler's code: an error that QuickJS makes in native code runs
 * Error.prepareStackTrace at once, in the midst of what the shim is doing. The shim's own get their stack from the frame of the
 * handler that they come to, when all of the shim has been left. */

/* A message, cut rather than allocated. */
typedef struct NxMessage {
    char text[640];
    size_t len;
} NxMessage;

static void nx_say(NxMessage *m, const char *text)
{
    while (*text && m->len < sizeof(m->text) - 1)
        m->text[m->len++] = *text++;
}

static JSValue nx_throw_message(JSContext *ctx, JSErrorEnum kind, NxMessage *m)
{
    JSValue err;

    m->text[m->len] = 0;
    err = JS_MakeError2(ctx, kind, false, m->text);
    /* no memory even for this: what is pending says so */
    return JS_IsException(err) ? err : JS_Throw(ctx, err);
}

static JSValue nx_throw(JSContext *ctx, JSErrorEnum kind, const char *text)
{
    NxMessage m = { .len = 0 };
    nx_say(&m, text);
    return nx_throw_message(ctx, kind, &m);
}

static JSValue nx_throw_needs(JSContext *ctx, const char *before, const char *name, const char *after)
{
    NxMessage m = { .len = 0 };
    nx_say(&m, before);
    nx_say(&m, name);
    nx_say(&m, after);
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

/* ---- properties that are defined ---- */

/* Defines an own property; takes v, which may be the exception of an allocation that failed: that never becomes a value. */
static int nx_define(JSContext *ctx, JSValueConst obj, JSAtom name, JSValue v, int flags)
{
    if (JS_IsException(v))
        return -1;
    return JS_DefinePropertyValue(ctx, obj, name, v, flags);
}

static int nx_define_str(JSContext *ctx, JSValueConst obj, const char *name, JSValue v, int flags)
{
    if (JS_IsException(v))
        return -1;
    return JS_DefinePropertyValueStr(ctx, obj, name, v, flags);
}

typedef struct NxMethod {
    const char *name;
    JSCFunctionMagic *function;
    int length, magic;
} NxMethod;

static int nx_define_methods(JSContext *ctx, JSValueConst obj, const NxMethod *methods, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        const NxMethod *m = &methods[i];
        JSValue f = JS_NewCFunctionMagic(ctx, m->function, m->name, m->length, JS_CFUNC_generic_magic, m->magic);
        if (nx_define_str(ctx, obj, m->name, f, JS_PROP_ENUMERABLE) < 0)
            return -1;
    }
    return 0;
}

/* A global that keeps its value. */
static int nx_define_global(JSContext *ctx, const char *name, JSValue v)
{
    if (JS_IsException(v))
        return -1;
    if (nx_define_str(ctx, nx.our_names, name, js_dup(v), 0) < 0) {
        JS_FreeValue(ctx, v);
        return -1;
    }
    return nx_define_str(ctx, ctx->global_obj, name, v, JS_PROP_ENUMERABLE) < 0 ? -1 : 0;
}

/* Makes a global of these methods; takes obj. */
static int nx_define_global_of(JSContext *ctx, const char *name, JSValue obj, const NxMethod *methods, size_t count)
{
    if (JS_IsException(obj) || nx_define_methods(ctx, obj, methods, count))
        return -1;
    JS_VALUE_GET_OBJ(obj)->nx_is_ours = true;
    return nx_define_global(ctx, name, obj);
}

/* ---- the names of ours, which keep their values ---- */

/* What is thrown at whoever assigns to such a global, or to a method of one, or deletes it. */
static JSValue nx_throw_replaced(JSContext *ctx, const char *name, const char *method, bool deletes)
{
    NxMessage m = { .len = 0 };

    nx_say(&m, name);
    if (method) {
        nx_say(&m, ".");
        nx_say(&m, method);
    }
    if (deletes) {
        nx_say(&m, " cannot be deleted");
        return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
    }
    nx_say(&m, " cannot be assigned to; ");
    if (method)
        nx_say(&m, "write a function of your own, and call that");
    else if (!strcmp(name, "$state"))
        nx_say(&m, "write its keys, as in $state.name = value");
    else
        nx_say(&m, "declare a variable of another name for the value");
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

/* The global whose value this is, as an atom; JS_ATOM_NULL: none. */
static JSAtom nx_name_of_ours(const JSObject *of)
{
    JSObject *names = JS_VALUE_GET_OBJ(nx.our_names);
    uint32_t i;

    for (i = 0; i < (uint32_t)names->shape->prop_count; i++)
        if (JS_IsObject(names->prop[i].u.value) && JS_VALUE_GET_OBJ(names->prop[i].u.value) == of)
            return get_shape_prop(names->shape)[i].atom;
    return JS_ATOM_NULL;
}

static bool nx_refuses_replacing(JSContext *ctx, JSValueConst obj, JSAtom name, bool deletes)
{
    char buf[ATOM_GET_STR_BUF_SIZE], of_buf[ATOM_GET_STR_BUF_SIZE];
    JSProperty *pr;
    JSObject *p;

    if (!JS_IsObject(obj))
        return false;
    p = JS_VALUE_GET_OBJ(obj);
    if (p == JS_VALUE_GET_OBJ(ctx->global_obj)) {
        if (!find_own_property(&pr, JS_VALUE_GET_OBJ(nx.our_names), name))
            return false;
        nx_throw_replaced(ctx, JS_AtomGetStr(ctx, buf, sizeof(buf), name), NULL, deletes);
        return true;
    }
    /* what the handler has put beside our methods is its own */
    if (!p->nx_is_ours || (deletes && find_own_property(&pr, p, name)->flags & JS_PROP_CONFIGURABLE))
        return false;
    nx_throw_replaced(ctx, JS_AtomGetStr(ctx, of_buf, sizeof(of_buf), nx_name_of_ours(p)), JS_AtomGetStr(ctx, buf, sizeof(buf), name),
                      deletes);
    return true;
}

static bool nx_refuses_assignment(JSContext *ctx, JSValueConst obj, JSAtom name)
{
    return nx_refuses_replacing(ctx, obj, name, false);
}

static bool nx_refuses_deletion(JSContext *ctx, JSValueConst obj, JSAtom name)
{
    return nx_refuses_replacing(ctx, obj, name, true);
}

/* ---- errors that are told apart by what they are ----
 *
 * A mark is a bit of the object itself: a handler can neither see it, nor set it, nor copy it to another. */

/* Whether memory is what is wanting, whatever the error says. */
static bool nx_is_for_memory(JSValueConst error)
{
    return nx_refused_since || (JS_IsObject(error) && JS_VALUE_GET_OBJ(error)->nx_is_for_memory);
}

/* The first error that is thrown after a refusal stands for it. One that is no Error has nobody who looks after it. */
static void nx_note_thrown(JSValueConst error)
{
    if (!JS_IsObject(error))
        return;
    JS_VALUE_GET_OBJ(error)->nx_is_for_memory = true;
    nx_refused_since = !JS_IsError(error);
}

static void nx_note_caught(JSValueConst error)
{
    JSObject *p = JS_IsObject(error) ? JS_VALUE_GET_OBJ(error) : NULL;

    if (!p || likely(!p->nx_is_for_memory)) {
        /* what was refused while this one was on its way has come to nothing: the handler goes on */
        nx_refused_since = false;
        return;
    }
    p->nx_was_caught = true;
    if (p->class_id != JS_CLASS_ERROR)
        nx_refused_since = false;
}

/* One that stands for a refusal and that the handler has never seen: what comes of that does now. */
static void nx_error_finalizer(JSRuntime *rt, JSValueConst error)
{
    JSObject *p = JS_VALUE_GET_OBJ(error);

    if (p->nx_is_for_memory && !p->nx_was_caught)
        nx_refused_since = true;
    js_object_data_finalizer(rt, error);
}

/* ---- errors with a code ---- */

/* Adds a code, and a field more (which it takes), to the error that is pending. */
static JSValue nx_add_code(JSContext *ctx, const char *code, JSAtom field, JSValue value)
{
    JSValue err = JS_GetException(ctx);
    int failed;

    if (!JS_IsError(err)) {
        JS_FreeValue(ctx, value);
        return JS_Throw(ctx, err);
    }
    failed = nx_define(ctx, err, nx.atom_code, JS_NewString(ctx, code), JS_PROP_C_W_E) < 0;
    if (failed || field == JS_ATOM_NULL)
        JS_FreeValue(ctx, value);
    else
        failed = nx_define(ctx, err, field, value, JS_PROP_C_W_E) < 0;
    if (!failed) {
        JS_VALUE_GET_OBJ(err)->nx_is_refusal = true;
        return JS_Throw(ctx, err);
    }
    JS_FreeValue(ctx, err);
    return JS_EXCEPTION;
}

/* A value that has no encoding. */
static JSValue nx_throw_serialization(JSContext *ctx, const char *what)
{
    nx_throw(ctx, JS_TYPE_ERROR, what);
    nx_add_code(ctx, "SERIALIZATION_ERROR", JS_ATOM_NULL, JS_UNDEFINED);
    if (JS_IsObject(ctx->rt->current_exception))
        JS_VALUE_GET_OBJ(ctx->rt->current_exception)->nx_is_unencoded = true;
    return JS_EXCEPTION;
}

/* Longest sentence and longest capability of the host. */
#define NX_REFUSAL_BYTES 2048

/* Throws what the host says of the call that it has just refused. */
static JSValue nx_throw_refused(JSContext *ctx, JSErrorEnum kind)
{
    char text[NX_REFUSAL_BYTES];
    int32_t len = __nexus_refusal(0, (uint8_t *)text, sizeof(text) - 1);
    JSValue error;

    if (len <= 0 || (size_t)len >= sizeof(text))
        return nx_throw(ctx, kind, "the host has refused this");
    text[len] = 0;
    error = JS_MakeError2(ctx, kind, false, text);
    return JS_IsException(error) ? error : JS_Throw(ctx, error);
}

static JSValue nx_throw_denied(JSContext *ctx)
{
    uint8_t text[NX_REFUSAL_BYTES];
    int32_t len = __nexus_refusal(1, text, sizeof(text));
    JSValue token;

    if (len <= 0 || (size_t)len > sizeof(text))
        len = 0;
    token = JS_NewStringLen(ctx, (const char *)text, (size_t)len);
    if (JS_IsException(token))
        return token;
    nx_throw_refused(ctx, JS_PLAIN_ERROR);
    return nx_add_code(ctx, "PERMISSION_DENIED", nx.atom_capability, token);
}

/* Ends the execution: see nx_ended. */
static JSValue nx_throw_end(JSContext *ctx, const char *message)
{
    nx_ended = true;
    ctx->interrupt_counter = 1;
    nx_throw(ctx, JS_INTERNAL_ERROR, message);
    JS_SetUncatchableError(ctx, ctx->rt->current_exception);
    return JS_EXCEPTION;
}

/* Whether no host call may be made (the execution has ended): then an error that says so is pending. Asked in front of every host call, but for those
 * that hand over what a failed handler has changed. */
static bool nx_has_ended(JSContext *ctx)
{
    if (unlikely(nx.asks_again)) {
        nx_throw(ctx, JS_TYPE_ERROR, "no call of the host can be made here");
        return true;
    }
    if (likely(!nx_ended) || nx.leaving)
        return false;
    nx_throw_end(ctx, "the execution has ended");
    return true;
}

/* What a negative result of a host call becomes in the handler. */
static JSValue nx_throw_host(JSContext *ctx, int32_t result)
{
    switch (result) {
    case NX_DENIED:
        return nx_throw_denied(ctx);
    case NX_LIMIT:
        return nx_throw_end(ctx, "a limit of this execution is used up");
    case NX_INVALID:
        return nx_throw_refused(ctx, JS_TYPE_ERROR);
    default:
        return nx_throw_end(ctx, "the host could not answer a call");
    }
}

/* Drops the pending exception. False: nobody may, it ends the execution, and is still pending. */
static bool nx_swallow(JSContext *ctx)
{
    if (nx_ended || JS_IsUncatchableError(ctx->rt->current_exception))
        return false;
    JS_FreeValue(ctx, JS_GetException(ctx));
    return true;
}
