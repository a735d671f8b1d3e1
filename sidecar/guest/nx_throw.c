/* What the shim throws. Nothing here runs the handler's code: an error that QuickJS makes in native code runs
 * Error.prepareStackTrace at once, in the midst of what the shim is doing. The shim's own get their stack from the frame of the
 * handler that they come to, when all of the shim has been left. */

/* A message, cut rather than allocated. */
typedef struct NxMessage {
    char text[640];
    size_t len;
} NxMessage;

/* Longest part of a name that a message repeats, in bytes. */
#define NX_SAID_OF_A_NAME 200

static void nx_say(NxMessage *m, const char *text)
{
    while (*text && m->len < sizeof(m->text) - 1)
        m->text[m->len++] = *text++;
}

/* A name that the handler gave: any characters, and its length beside it. */
static void nx_say_name(NxMessage *m, const char *name, size_t len)
{
    size_t i;

    if (len > NX_SAID_OF_A_NAME)
        for (len = NX_SAID_OF_A_NAME; len > 0 && (name[len] & 0xc0) == 0x80;)
            len--;
    for (i = 0; i < len; i++) {
        char c[2] = { name[i], 0 };
        nx_say(m, c[0] ? c : "\xef\xbf\xbd");
    }
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

static int nx_define_global(JSContext *ctx, const char *name, JSValue v)
{
    return nx_define_str(ctx, ctx->global_obj, name, v, JS_PROP_ENUMERABLE) < 0 ? -1 : 0;
}

/* Makes a global of these methods; takes obj. */
static int nx_define_global_of(JSContext *ctx, const char *name, JSValue obj, const NxMethod *methods, size_t count)
{
    if (JS_IsException(obj) || nx_define_methods(ctx, obj, methods, count))
        return -1;
    return nx_define_global(ctx, name, obj);
}

/* ---- the names of ours, which keep their values ---- */

/* What is thrown at whoever assigns to such a name. */
static JSValue nx_throw_replaced(JSContext *ctx, const char *name)
{
    NxMessage m = { .len = 0 };

    nx_say(&m, name);
    nx_say(&m, " cannot be assigned to; ");
    if (!strcmp(name, "$state"))
        nx_say(&m, "write its keys, as in $state.name = value");
    else
        nx_say(&m, "declare a variable of another name for the value");
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

static bool nx_refuses_assignment(JSContext *ctx, JSAtom name)
{
    static const char *const names[] = { "$state", "$args", "$scope", "$emit", "$view", "$ext", "$log", "$time" };
    char buf[ATOM_GET_STR_BUF_SIZE];
    const char *text = JS_AtomGetStr(ctx, buf, sizeof(buf), name);
    size_t i;

    for (i = 0; i < countof(names); i++)
        if (!strcmp(text, names[i])) {
            nx_throw_replaced(ctx, names[i]);
            return true;
        }
    return false;
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
    if (!failed)
        return JS_Throw(ctx, err);
    JS_FreeValue(ctx, err);
    return JS_EXCEPTION;
}

static JSValue nx_throw_serialization(JSContext *ctx, const char *what)
{
    nx_throw(ctx, JS_TYPE_ERROR, what);
    return nx_add_code(ctx, "SERIALIZATION_ERROR", JS_ATOM_NULL, JS_UNDEFINED);
}

/* The capability that is missing, e.g. "state:read:" and "user". */
static JSValue nx_throw_denied(JSContext *ctx, const char *prefix, const char *name, size_t len)
{
    NxMessage m = { .len = 0 };
    JSValue token;

    nx_say(&m, "this needs the capability '");
    nx_say(&m, prefix);
    nx_say_name(&m, name, len);
    nx_say(&m, "', which was not granted");
    token = JS_NewString(ctx, prefix);
    if (!JS_IsException(token))
        token = JS_ConcatString(ctx, token, JS_NewStringLen(ctx, name, len));
    if (JS_IsException(token))
        return token;
    nx_throw_message(ctx, JS_PLAIN_ERROR, &m);
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

/* Whether the execution has ended: then an error that says so is pending. Asked in front of every host call, but for those
 * that hand over what a failed handler has changed. */
static bool nx_has_ended(JSContext *ctx)
{
    if (likely(!nx_ended) || nx.leaving)
        return false;
    nx_throw_end(ctx, "the execution has ended");
    return true;
}

/* What a negative result of a host call becomes in the handler. */
static JSValue nx_throw_host(JSContext *ctx, int32_t result, const char *prefix, const char *name, size_t len)
{
    NxMessage m = { .len = 0 };

    switch (result) {
    case NX_DENIED:
        return nx_throw_denied(ctx, prefix, name, len);
    case NX_LIMIT:
        return nx_throw_end(ctx, "a limit of this execution is used up");
    case NX_INVALID:
        nx_say(&m, "invalid name or value: '");
        nx_say(&m, prefix);
        nx_say_name(&m, name, len);
        nx_say(&m, "'");
        return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
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
