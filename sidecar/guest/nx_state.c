/* $state: an object whose properties are the top-level keys of the state, see nx_keys.c. */

static const char *const nx_state_method_names[] = { "get", "set", "delete", "has", "keys", "update" };

/* ---- the object ---- */

static bool nx_atom_is_symbol(JSContext *ctx, JSAtom atom)
{
    return JS_AtomGetKind(ctx, atom) != JS_ATOM_KIND_STRING;
}

/* What the language looks up by itself in any object: whoever may not read such a key has not asked to. */
static bool nx_is_language_name(JSAtom atom)
{
    JSProperty *pr;
    return find_own_property(&pr, JS_VALUE_GET_OBJ(nx.language_names), atom) != NULL;
}

/* Whether there is a key of a method's name: then the key is what is read, as with any object that has a property of its own.
 * The handler's writes are known here; of what was there before, the host has said it. */
static bool nx_hides_method(JSAtom name, const JSProperty *method)
{
    int32_t at = nx_find_key(name);

    if (at >= 0)
        return JS_VALUE_GET_TAG(nx.keys[at].value) != JS_TAG_UNINITIALIZED;
    return nx.hidden_methods >> (method - JS_VALUE_GET_OBJ(nx.state_methods)->prop) & 1;
}

static JSValue nx_state_get_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst receiver)
{
    JSProperty *method;
    int32_t at;
    int found;

    (void)obj, (void)receiver;
    if (nx_atom_is_symbol(ctx, atom))
        return JS_UNDEFINED;
    if (find_own_property(&method, JS_VALUE_GET_OBJ(nx.state_methods), atom) && !nx_hides_method(atom, method))
        return js_dup(method->u.value);
    if (!nx_is_language_name(atom))
        return nx_state_read(ctx, atom);
    found = nx_fetch_key(ctx, atom, true, &at);
    if (found < 0)
        return JS_EXCEPTION;
    if (found && JS_VALUE_GET_TAG(nx.keys[at].value) != JS_TAG_UNINITIALIZED)
        return nx_view_of(at);
    return JS_GetProperty(ctx, ctx->class_proto[JS_CLASS_OBJECT], atom);
}

static int nx_refuse_symbol(JSContext *ctx)
{
    nx_throw(ctx, JS_TYPE_ERROR, "keys of $state are strings");
    return -1;
}

/* An assignment to what has $state for a prototype makes a property there, as with any object. */
static int nx_set_on_receiver(JSContext *ctx, JSValueConst receiver, JSAtom atom, JSValueConst value, int flags)
{
    int found, is_there;

    if (!JS_IsObject(receiver))
        return JS_ThrowTypeErrorOrFalse(ctx, flags, "not an object");
    is_there = JS_GetOwnPropertyFlagsInternal(ctx, &found, JS_VALUE_GET_OBJ(receiver), atom);
    if (is_there < 0)
        return -1;
    if (!is_there)
        return JS_DefinePropertyValue(ctx, receiver, atom, js_dup(value), JS_PROP_C_W_E | flags);
    if (found & JS_PROP_GETSET || !(found & JS_PROP_WRITABLE))
        return JS_ThrowTypeErrorOrFalse(ctx, flags, "the property cannot be written");
    return JS_DefineProperty(ctx, receiver, atom, value, JS_UNDEFINED, JS_UNDEFINED, JS_PROP_HAS_VALUE | flags);
}

static int nx_state_set_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst receiver, int flags)
{
    JSObject *to = JS_IsObject(receiver) ? JS_VALUE_GET_OBJ(receiver) : NULL;

    /* a Proxy of $state is another name for it */
    if (to != JS_VALUE_GET_OBJ(obj) && !(to && to->class_id == JS_CLASS_PROXY))
        return nx_set_on_receiver(ctx, receiver, atom, value, flags);
    if (nx_atom_is_symbol(ctx, atom))
        return nx_refuse_symbol(ctx);
    return nx_state_write(ctx, atom, value) ? -1 : 1;
}

static int nx_state_delete_property(JSContext *ctx, JSValueConst obj, JSAtom atom)
{
    (void)obj;
    if (nx_atom_is_symbol(ctx, atom))
        return 1;
    return nx_state_remove(ctx, atom) < 0 ? -1 : 1;
}

static int nx_state_has_property(JSContext *ctx, JSValueConst obj, JSAtom atom)
{
    (void)obj;
    return nx_atom_is_symbol(ctx, atom) ? 0 : nx_state_contains(ctx, atom);
}

static int nx_state_get_own_property(JSContext *ctx, JSPropertyDescriptor *desc, JSValueConst obj, JSAtom atom)
{
    int32_t at;

    (void)obj;
    if (nx_atom_is_symbol(ctx, atom))
        return 0;
    if (!desc)
        return nx_state_contains(ctx, atom);
    if (nx_fetch_key(ctx, atom, false, &at) < 0)
        return -1;
    if (JS_VALUE_GET_TAG(nx.keys[at].value) == JS_TAG_UNINITIALIZED)
        return 0;
    desc->flags = JS_PROP_C_W_E;
    desc->getter = desc->setter = JS_UNDEFINED;
    desc->value = nx_view_of(at);
    return 1;
}

static int nx_state_define_own_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst getter,
                                        JSValueConst setter, int flags)
{
    (void)getter, (void)setter;
    if (!(flags & JS_PROP_HAS_VALUE)) {
        nx_throw(ctx, JS_TYPE_ERROR, "$state holds values, not accessors");
        return -1;
    }
    if ((flags & JS_PROP_HAS_CONFIGURABLE && !(flags & JS_PROP_CONFIGURABLE)) ||
        (flags & JS_PROP_HAS_WRITABLE && !(flags & JS_PROP_WRITABLE)) || (flags & JS_PROP_HAS_ENUMERABLE && !(flags & JS_PROP_ENUMERABLE))) {
        nx_throw(ctx, JS_TYPE_ERROR, "a key of $state can be written, listed and deleted, always: assign the value");
        return -1;
    }
    return nx_state_set_property(ctx, obj, atom, value, obj, 0);
}

static int nx_state_own_names(JSContext *ctx, JSPropertyEnum **ptab, uint32_t *plen, JSValueConst obj)
{
    JSValue keys = nx_state_keys(ctx);
    JSPropertyEnum *tab;
    uint32_t i, n;
    JSObject *p;

    (void)obj;
    if (JS_IsException(keys))
        return -1;
    p = JS_VALUE_GET_OBJ(keys);
    n = p->u.array.count;
    tab = js_malloc(ctx, sizeof(*tab) * max_int(n, 1));
    if (!tab)
        goto fail;
    for (i = 0; i < n; i++) {
        tab[i].atom = JS_ValueToAtom(ctx, p->u.array.u.values[i]);
        tab[i].is_enumerable = true;
        if (tab[i].atom == JS_ATOM_NULL) {
            JS_FreePropertyEnum(ctx, tab, i);
            goto fail;
        }
    }
    JS_FreeValue(ctx, keys);
    *ptab = tab;
    *plen = n;
    return 0;
fail:
    JS_FreeValue(ctx, keys);
    return -1;
}

static JSClassExoticMethods nx_state_exotic = {
    .get_own_property = nx_state_get_own_property,
    .get_own_property_names = nx_state_own_names,
    .delete_property = nx_state_delete_property,
    .define_own_property = nx_state_define_own_property,
    .has_property = nx_state_has_property,
    .get_property = nx_state_get_property,
    .set_property = nx_state_set_property,
};

/* ---- the methods ---- */

enum { NX_GET, NX_SET, NX_DELETE, NX_HAS, NX_KEYS, NX_UPDATE };

/* A function that changes a value where it is, and returns nothing, would leave null in its place. */
static JSValue nx_throw_update(JSContext *ctx, JSAtom name)
{
    char buf[ATOM_GET_STR_BUF_SIZE];
    NxMessage m = { .len = 0 };

    nx_say(&m, "the function of $state.update('");
    nx_say(&m, JS_AtomGetStr(ctx, buf, sizeof(buf), name));
    nx_say(&m, "', ...) has returned undefined: it has to return the value of the key, null for none");
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

static JSValue nx_state_method(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int which)
{
    JSValue ret = JS_UNDEFINED, old;
    JSAtom name;
    int n;

    (void)this_val;
    if (which == NX_KEYS)
        return nx_state_keys(ctx);
    if (argc < 1 || JS_IsSymbol(argv[0]))
        return nx_throw_needs(ctx, "$state.", nx_state_method_names[which], " needs the name of a key");
    name = JS_ValueToAtom(ctx, argv[0]);
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    switch (which) {
    case NX_GET:
        ret = nx_state_read(ctx, name);
        break;
    case NX_SET:
        ret = nx_state_write(ctx, name, argc > 1 ? argv[1] : JS_UNDEFINED) ? JS_EXCEPTION : js_dup(argc > 1 ? argv[1] : JS_UNDEFINED);
        break;
    case NX_UPDATE:
        if (argc < 2 || !JS_IsFunction(ctx, argv[1])) {
            ret = nx_throw(ctx, JS_TYPE_ERROR, "$state.update needs a key and a function");
            break;
        }
        old = nx_state_read(ctx, name);
        if (JS_IsException(old)) {
            ret = old;
            break;
        }
        ret = JS_Call(ctx, argv[1], JS_UNDEFINED, 1, vc(&old));
        JS_FreeValue(ctx, old);
        if (JS_IsUndefined(ret)) {
            ret = nx_throw_update(ctx, name);
            break;
        }
        if (!JS_IsException(ret) && nx_state_write(ctx, name, ret)) {
            JS_FreeValue(ctx, ret);
            ret = JS_EXCEPTION;
        }
        break;
    default:
        n = which == NX_DELETE ? nx_state_remove(ctx, name) : nx_state_contains(ctx, name);
        ret = n < 0 ? JS_EXCEPTION : JS_NewBool(ctx, n);
    }
    JS_FreeAtom(ctx, name);
    return ret;
}

/* The names that every object has, before a handler can add any, and the two that the language asks for beside them. */
static int nx_init_language_names(JSContext *ctx)
{
    JSPropertyEnum *names;
    uint32_t count, i;
    int failed = 0;

    nx.language_names = JS_NewObjectProto(ctx, JS_NULL);
    if (JS_IsException(nx.language_names) ||
        JS_GetOwnPropertyNames(ctx, &names, &count, ctx->class_proto[JS_CLASS_OBJECT], JS_GPN_STRING_MASK))
        return -1;
    for (i = 0; i < count && !failed; i++)
        failed = JS_DefinePropertyValue(ctx, nx.language_names, names[i].atom, JS_TRUE, JS_PROP_C_W_E) < 0;
    JS_FreePropertyEnum(ctx, names, count);
    return failed || JS_DefinePropertyValue(ctx, nx.language_names, JS_ATOM_then, JS_TRUE, JS_PROP_C_W_E) < 0 ||
                   JS_DefinePropertyValue(ctx, nx.language_names, JS_ATOM_toJSON, JS_TRUE, JS_PROP_C_W_E) < 0
               ? -1
               : 0;
}

static int nx_init_state(JSContext *ctx)
{
    static const JSClassDef state_def = { "State", .exotic = &nx_state_exotic };
    size_t i;

    JS_NewClassID(nx.rt, &nx.state_class);
    if (JS_NewClass(nx.rt, nx.state_class, &state_def) || nx_init_language_names(ctx))
        return -1;
    nx.state_methods = JS_NewObjectProto(ctx, JS_NULL);
    for (i = 0; i < countof(nx_state_method_names); i++) {
        const char *name = nx_state_method_names[i];
        JSValue method = JS_NewCFunctionMagic(ctx, nx_state_method, name, 1, JS_CFUNC_generic_magic, (int)i);
        if (nx_define_str(ctx, nx.state_methods, name, method, JS_PROP_C_W_E) < 0)
            return -1;
    }
    nx.key_index = JS_NewObjectProto(ctx, JS_NULL);
    nx.state_object = JS_NewObjectProtoClass(ctx, JS_NULL, nx.state_class);
    if (JS_IsException(nx.key_index) || JS_IsException(nx.state_object) || nx_init_read_only_views(ctx))
        return -1;
    return nx_define_global(ctx, "$state", js_dup(nx.state_object));
}
