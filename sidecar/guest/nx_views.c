/* Read-only views: what $state hands out for keys that may not be written. A view of an object or an array is a Proxy of it, and
 * so is every object that is read through it. Dates and bytes, whose methods work on nothing but the thing itself, are handed out
 * as they are: a date is asked for by its setters (a build-time patch), bytes lie in a buffer that cannot be changed. Either way
 * a write throws where it happens. */

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

/* Each key has a handler object of its own: it inherits the traps, and holds the name of the key. It is the host that refuses
 * the write: an attempt to set the key, which it finds forbidden before it looks at the value. */
static JSValue nx_throw_read_only(JSContext *ctx, JSValueConst handler)
{
    size_t len;
    const char *key = JS_ToCStringLen(ctx, &len, nx_own_value(handler, nx.atom_key));
    int32_t result;

    if (key && !nx_has_ended(ctx)) {
        result = __nexus_state_set((const uint8_t *)key, (uint32_t)len, NULL, 0);
        nx_throw_host(ctx, result < 0 ? result : NX_INTERNAL);
    }
    JS_FreeCString(ctx, key);
    return JS_EXCEPTION;
}

static JSValue nx_refuse_trap(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    (void)argc, (void)argv, (void)magic, (void)data;
    return nx_throw_read_only(ctx, this_val);
}

static bool nx_refuses_write(JSContext *ctx, JSValueConst leaf)
{
    JSValue handler;

    if (!nx.has_read_only_leaves)
        return false;
    handler = js_map_get(ctx, nx.read_only_views, 1, &leaf, MAGIC_WEAK);
    if (!JS_IsObject(handler)) {
        JS_FreeValue(ctx, handler);
        return false;
    }
    nx_throw_read_only(ctx, handler);
    JS_FreeValue(ctx, handler);
    return true;
}

/* Notes what belongs to an object, in place of the one before. -1: exception. */
static int nx_note_view(JSContext *ctx, JSValueConst of, JSValueConst view)
{
    JSValueConst pair[2] = { of, view };
    JSValue ret = js_map_set(ctx, nx.read_only_views, 2, pair, MAGIC_WEAK);

    if (JS_IsException(ret))
        return -1;
    JS_FreeValue(ctx, ret);
    return 0;
}

/* A Date or bytes of a key that may not be written: the handler object of the key is noted for what would be changed. */
static JSValue nx_read_only_leaf(JSContext *ctx, JSValueConst leaf, JSValueConst handler)
{
    JSObject *p = JS_VALUE_GET_OBJ(leaf);

    if (p->extensible) {
        if (p->class_id == JS_CLASS_UINT8_ARRAY) {
            JSObject *buffer = p->u.typed_array->buffer;
            if (nx_note_view(ctx, JS_MKPTR(JS_TAG_OBJECT, buffer), handler))
                return JS_EXCEPTION;
            buffer->u.array_buffer->immutable = true;
        }
        if (nx_note_view(ctx, leaf, handler))
            return JS_EXCEPTION;
        p->extensible = false;
        nx.has_read_only_leaves = true;
    }
    return js_dup(leaf);
}

/* What the value has itself comes behind a view. What it inherits is not of the state, and is read as the language says: a
 * getter gets the view, never the value. */
static JSValue nx_view_get(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSAtom name = JS_ValueToAtom(ctx, argv[1]);
    JSPropertyDescriptor found;
    JSValue v;
    int is_there;

    (void)argc, (void)magic, (void)data;
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    is_there = JS_GetOwnPropertyInternal(ctx, &found, JS_VALUE_GET_OBJ(argv[0]), name);
    if (is_there > 0) {
        /* what was decoded has values, no accessors */
        v = nx_read_only_view(ctx, found.value, this_val);
        js_free_desc(ctx, &found);
    } else {
        v = is_there < 0 ? JS_EXCEPTION : JS_GetPropertyInternal(ctx, argv[0], name, argv[2], false);
    }
    JS_FreeAtom(ctx, name);
    return v;
}

/* What is written to a view is refused. What is written to an object that has the view for a prototype is none of the state, and
 * goes the way that the language says. */
static JSValue nx_view_set(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValueConst of[1] = { argv[0] };
    JSValue view = js_map_get(ctx, nx.read_only_views, 1, of, MAGIC_WEAK);
    bool is_view = !JS_IsObject(argv[3]) || (JS_IsObject(view) && JS_VALUE_GET_OBJ(view) == JS_VALUE_GET_OBJ(argv[3]));
    JSAtom name;
    int ret;

    (void)argc, (void)magic, (void)data;
    JS_FreeValue(ctx, view);
    if (is_view)
        return nx_throw_read_only(ctx, this_val);
    name = JS_ValueToAtom(ctx, argv[1]);
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    ret = JS_SetPropertyInternal2(ctx, of[0], name, js_dup(argv[2]), argv[3], JS_PROP_THROW_STRICT);
    JS_FreeAtom(ctx, name);
    return ret < 0 ? JS_EXCEPTION : JS_NewBool(ctx, ret);
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
    js_free_desc(ctx, &found);
    if (JS_IsException(view))
        return view;
    ret = JS_NewObject(ctx);
    if (JS_IsException(ret)) {
        JS_FreeValue(ctx, view);
        return ret;
    }
    is_there = JS_DefinePropertyValueStr(ctx, ret, "value", view, JS_PROP_C_W_E);
    for (i = 0; i < countof(flags) && is_there >= 0; i++)
        is_there = JS_DefinePropertyValueStr(ctx, ret, flags[i].name, JS_NewBool(ctx, found.flags & flags[i].flag), JS_PROP_C_W_E);
    if (is_there >= 0)
        return ret;
    JS_FreeValue(ctx, ret);
    return JS_EXCEPTION;
}

/* A view of target in which writes throw; the same one each time. */
static JSValue nx_read_only_view(JSContext *ctx, JSValueConst target, JSValueConst handler)
{
    JSValue view;

    if (nx_is_leaf(target))
        return nx_read_only_leaf(ctx, target, handler);
    if (!nx_is_plain_container(target))
        return js_dup(target);
    view = js_map_get(ctx, nx.read_only_views, 1, &target, MAGIC_WEAK);
    if (!JS_IsUndefined(view))
        return view;
    view = JS_NewProxy(ctx, target, handler);
    if (!JS_IsException(view) && nx_note_view(ctx, target, view)) {
        JS_FreeValue(ctx, view);
        return JS_EXCEPTION;
    }
    return view;
}

static JSValue nx_read_only_root(JSContext *ctx, JSValueConst target, JSAtom key)
{
    JSValue handler, view;

    if (!nx_is_plain_container(target) && !nx_is_leaf(target))
        return js_dup(target);
    handler = JS_NewObjectProto(ctx, nx.read_only_handler);
    if (JS_IsException(handler))
        return handler;
    if (nx_define(ctx, handler, nx.atom_key, JS_AtomToString(ctx, key), 0) < 0) {
        JS_FreeValue(ctx, handler);
        return JS_EXCEPTION;
    }
    view = nx_read_only_view(ctx, target, handler);
    JS_FreeValue(ctx, handler);
    return view;
}

static int nx_init_read_only_views(JSContext *ctx)
{
    static const char *const writes[] = { "deleteProperty", "defineProperty", "setPrototypeOf", "preventExtensions" };
    JSValue weak_map = JS_GetPropertyStr(ctx, ctx->global_obj, "WeakMap");
    size_t i;

    nx.read_only_handler = JS_NewObjectProto(ctx, JS_NULL);
    for (i = 0; i < countof(writes); i++)
        if (nx_define_str(ctx, nx.read_only_handler, writes[i], JS_NewCFunctionData(ctx, nx_refuse_trap, 0, 0, 0, NULL), JS_PROP_C_W_E) < 0)
            return -1;
    if (nx_define_str(ctx, nx.read_only_handler, "get", JS_NewCFunctionData(ctx, nx_view_get, 3, 0, 0, NULL), JS_PROP_C_W_E) < 0 ||
        nx_define_str(ctx, nx.read_only_handler, "set", JS_NewCFunctionData(ctx, nx_view_set, 4, 0, 0, NULL), JS_PROP_C_W_E) < 0 ||
        nx_define_str(ctx, nx.read_only_handler, "getOwnPropertyDescriptor", JS_NewCFunctionData(ctx, nx_view_descriptor, 2, 0, 0, NULL),
                      JS_PROP_C_W_E) < 0)
        return -1;
    nx.read_only_views = JS_CallConstructor(ctx, weak_map, 0, NULL);
    JS_FreeValue(ctx, weak_map);
    return JS_IsException(nx.read_only_views) ? -1 : 0;
}
