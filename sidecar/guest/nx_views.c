/* Read-only views: what $state hands out for keys that may not be written. A view is a Proxy of the value, and so is every
 * object that is read through it; a write throws where it happens. */

static JSValue nx_read_only_view(JSContext *ctx, JSValueConst target, JSValueConst handler);

static bool nx_is_plain_container(JSValueConst v)
{
    if (!JS_IsObject(v))
        return false;
    switch (JS_VALUE_GET_OBJ(v)->class_id) {
    case JS_CLASS_OBJECT:
    case JS_CLASS_ARRAY:
        return true;
    default:
        return false;
    }
}

/* Each key has a handler object of its own: it inherits the traps, and holds the name of the key. */
static JSValue nx_refuse_write(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValue name = JS_GetProperty(ctx, this_val, nx.atom_key);
    size_t len;
    const char *key = JS_ToCStringLen(ctx, &len, name);

    (void)argc, (void)argv, (void)magic, (void)data;
    if (key)
        nx_throw_denied(ctx, "state:write:", key, len);
    JS_FreeCString(ctx, key);
    JS_FreeValue(ctx, name);
    return JS_EXCEPTION;
}

static JSValue nx_view_get(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSAtom name = JS_ValueToAtom(ctx, argv[1]);
    JSValue v, view;

    (void)argc, (void)magic, (void)data;
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    v = JS_GetProperty(ctx, argv[0], name);
    JS_FreeAtom(ctx, name);
    if (JS_IsException(v))
        return v;
    view = nx_read_only_view(ctx, v, this_val);
    JS_FreeValue(ctx, v);
    return view;
}

/* The descriptor of a property, its value behind a view as well: else it would be the way around. */
static JSValue nx_view_descriptor(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    static const struct {
        const char *name;
        int flag;
    } flags[] = { { "writable", JS_PROP_WRITABLE }, { "enumerable", JS_PROP_ENUMERABLE }, { "configurable", JS_PROP_CONFIGURABLE } };
    JSAtom name = JS_ValueToAtom(ctx, argv[1]);
    JSPropertyDescriptor found;
    JSValue view, ret;
    size_t i;
    int is_there;

    (void)argc, (void)magic, (void)data;
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    is_there = JS_GetOwnPropertyInternal(ctx, &found, JS_VALUE_GET_OBJ(argv[0]), name);
    JS_FreeAtom(ctx, name);
    if (is_there <= 0)
        return is_there < 0 ? JS_EXCEPTION : JS_UNDEFINED;
    /* what was decoded has values, no accessors */
    view = nx_read_only_view(ctx, found.value, this_val);
    JS_FreeValue(ctx, found.value);
    JS_FreeValue(ctx, found.getter);
    JS_FreeValue(ctx, found.setter);
    if (JS_IsException(view))
        return view;
    ret = JS_NewObject(ctx);
    if (JS_IsException(ret)) {
        JS_FreeValue(ctx, view);
        return ret;
    }
    JS_DefinePropertyValueStr(ctx, ret, "value", view, JS_PROP_C_W_E);
    for (i = 0; i < countof(flags); i++)
        JS_DefinePropertyValueStr(ctx, ret, flags[i].name, JS_NewBool(ctx, found.flags & flags[i].flag), JS_PROP_C_W_E);
    return ret;
}

/* A view of target in which writes throw; the same one each time. Values that are not plain containers are their own view:
 * what the handler does to its copy of a Date or a Uint8Array goes nowhere, since the key is not compared at the end. */
static JSValue nx_read_only_view(JSContext *ctx, JSValueConst target, JSValueConst handler)
{
    JSValue view, ret;

    if (!nx_is_plain_container(target))
        return js_dup(target);
    view = js_map_get(ctx, nx.read_only_views, 1, &target, MAGIC_WEAK);
    if (!JS_IsUndefined(view))
        return view;
    view = JS_NewProxy(ctx, target, handler);
    if (JS_IsException(view))
        return view;
    JSValueConst pair[2] = { target, view };
    ret = js_map_set(ctx, nx.read_only_views, 2, pair, MAGIC_WEAK);
    if (JS_IsException(ret)) {
        JS_FreeValue(ctx, view);
        return ret;
    }
    JS_FreeValue(ctx, ret);
    return view;
}

static JSValue nx_read_only_root(JSContext *ctx, JSValueConst target, JSAtom key)
{
    JSValue handler, view;

    if (!nx_is_plain_container(target))
        return js_dup(target);
    handler = JS_NewObjectProto(ctx, nx.read_only_handler);
    if (JS_IsException(handler))
        return handler;
    if (JS_DefinePropertyValue(ctx, handler, nx.atom_key, JS_AtomToString(ctx, key), 0) < 0) {
        JS_FreeValue(ctx, handler);
        return JS_EXCEPTION;
    }
    view = nx_read_only_view(ctx, target, handler);
    JS_FreeValue(ctx, handler);
    return view;
}

static int nx_init_read_only_views(JSContext *ctx)
{
    static const char *const writes[] = { "set", "deleteProperty", "defineProperty", "setPrototypeOf", "preventExtensions" };
    JSValue weak_map = JS_GetPropertyStr(ctx, ctx->global_obj, "WeakMap");
    size_t i;

    nx.read_only_handler = JS_NewObjectProto(ctx, JS_NULL);
    for (i = 0; i < countof(writes); i++)
        JS_SetPropertyStr(ctx, nx.read_only_handler, writes[i], JS_NewCFunctionData(ctx, nx_refuse_write, 0, 0, 0, NULL));
    JS_SetPropertyStr(ctx, nx.read_only_handler, "get", JS_NewCFunctionData(ctx, nx_view_get, 3, 0, 0, NULL));
    JS_SetPropertyStr(ctx, nx.read_only_handler, "getOwnPropertyDescriptor", JS_NewCFunctionData(ctx, nx_view_descriptor, 2, 0, 0, NULL));
    nx.read_only_views = JS_CallConstructor(ctx, weak_map, 0, NULL);
    JS_FreeValue(ctx, weak_map);
    return JS_IsException(nx.read_only_views) ? -1 : 0;
}
