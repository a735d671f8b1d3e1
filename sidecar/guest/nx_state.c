/* $state: an object whose properties are the top-level keys of the state.
 *
 * Keys are fetched from the host when they are first read. The value is then kept, so that the same object comes back each
 * time; at the end of a segment every object that was handed out and may be written is compared with the encoding that the
 * host knows, and set anew when the handler has changed something inside it. Objects under keys that may not be written are
 * handed out behind a read-only view, see nx_views.c. */

static const char *const nx_state_method_names[] = { "get", "set", "delete", "has", "keys", "update" };

/* Finds the entry of a key, or makes one without a value. NULL: exception. */
static NxKey *nx_find_key(JSContext *ctx, JSAtom name, bool *is_new)
{
    JSObject *index = JS_VALUE_GET_OBJ(nx.key_index);
    JSProperty *pr;
    NxKey *k;

    *is_new = false;
    if (find_own_property(&pr, index, name))
        return &nx.keys[JS_VALUE_GET_INT(pr->u.value)];
    if (nx.key_count == nx.key_capacity) {
        uint32_t capacity = nx.key_capacity ? nx.key_capacity * 2 : 8;
        NxKey *keys = js_realloc(ctx, nx.keys, capacity * sizeof(*keys));
        if (!keys)
            return NULL;
        nx.keys = keys;
        nx.key_capacity = capacity;
    }
    if (JS_DefinePropertyValue(ctx, nx.key_index, name, JS_NewInt32(ctx, (int32_t)nx.key_count), JS_PROP_C_W_E) < 0)
        return NULL;
    k = &nx.keys[nx.key_count++];
    *k = (NxKey){ JS_DupAtom(ctx, name), JS_UNINITIALIZED, JS_UNINITIALIZED, NULL, 0, false };
    *is_new = true;
    return k;
}

/* Takes ownership of value and bytes. */
static void nx_fill_key(JSContext *ctx, NxKey *k, JSValue value, JSValue view, uint8_t *bytes, uint32_t len, bool read_only)
{
    JS_FreeValue(ctx, k->value);
    JS_FreeValue(ctx, k->view);
    js_free(ctx, k->bytes);
    k->value = value;
    k->view = view;
    k->bytes = bytes;
    k->bytes_len = len;
    k->read_only = read_only;
}

/* Drops the entry made last, when its fetch failed. */
static void nx_forget_last_key(JSContext *ctx)
{
    NxKey *k = &nx.keys[--nx.key_count];
    JS_DeleteProperty(ctx, nx.key_index, k->name, 0);
    JS_FreeAtom(ctx, k->name);
}

/* Gets a key's entry with its value fetched. quiet: on a denial return NULL without an exception. */
static NxKey *nx_fetch_key(JSContext *ctx, JSAtom name, bool quiet)
{
    uint8_t small[2048], *bytes = small; /* a larger value is asked for twice */
    uint32_t capacity = sizeof(small);
    NxKey *k;
    bool is_new, read_only;
    const char *key;
    size_t key_len;
    int32_t got;
    JSValue value, view;

    k = nx_find_key(ctx, name, &is_new);
    if (!k || !is_new)
        return k;
    key = JS_AtomToCStringLen(ctx, &key_len, name);
    if (!key)
        goto forget;
    for (;;) {
        got = __nexus_state_get((const uint8_t *)key, (uint32_t)key_len, bytes, capacity);
        if (got < 0 || (uint32_t)(got & ~NX_READ_ONLY) <= capacity)
            break;
        capacity = (uint32_t)(got & ~NX_READ_ONLY);
        bytes = js_malloc(ctx, capacity);
        if (!bytes)
            goto free_key;
    }
    if (got == NX_NOT_FOUND) {
        JS_FreeCString(ctx, key);
        return k;
    }
    if (got < 0) {
        if (!(quiet && got == NX_DENIED))
            nx_throw_host(ctx, got, "state:read:", key, key_len);
        goto free_key;
    }
    read_only = (got & NX_READ_ONLY) != 0;
    got &= ~NX_READ_ONLY;
    value = nx_decode_payload(ctx, bytes, (uint32_t)got);
    if (JS_IsException(value))
        goto free_bytes;
    view = read_only ? nx_read_only_root(ctx, value, name) : js_dup(value);
    if (JS_IsException(view)) {
        JS_FreeValue(ctx, value);
        goto free_bytes;
    }
    if (!JS_IsObject(value) || read_only) {
        if (bytes != small)
            js_free(ctx, bytes);
        bytes = NULL;
        got = 0;
    } else if (bytes == small) {
        bytes = js_malloc(ctx, got);
        if (!bytes) {
            JS_FreeValue(ctx, value);
            JS_FreeValue(ctx, view);
            goto free_key;
        }
        memcpy(bytes, small, got);
    }
    JS_FreeCString(ctx, key);
    nx_fill_key(ctx, k, value, view, bytes, (uint32_t)got, read_only);
    return k;

free_bytes:
    if (bytes != small)
        js_free(ctx, bytes);
free_key:
    JS_FreeCString(ctx, key);
forget:
    nx_forget_last_key(ctx);
    return NULL;
}

static JSValue nx_state_read(JSContext *ctx, JSAtom name, bool quiet)
{
    NxKey *k = nx_fetch_key(ctx, name, quiet);
    if (!k)
        return quiet && !JS_HasException(ctx) ? JS_UNDEFINED : JS_EXCEPTION;
    return JS_VALUE_GET_TAG(k->value) == JS_TAG_UNINITIALIZED ? JS_UNDEFINED : js_dup(k->view);
}

/* Sends a value to the host; on success *bytes is the encoding (the caller's). */
static int nx_send_key(JSContext *ctx, JSAtom name, JSValueConst value, NxBuf *bytes)
{
    const char *key;
    size_t key_len;
    int32_t ret;

    if (nx_encode(ctx, bytes, value, NX_EFFECT_DEPTH))
        return -1;
    key = JS_AtomToCStringLen(ctx, &key_len, name);
    if (!key)
        return -1;
    ret = __nexus_state_set((const uint8_t *)key, (uint32_t)key_len, bytes->p, bytes->len);
    if (ret < 0)
        nx_throw_host(ctx, ret, "state:write:", key, key_len);
    JS_FreeCString(ctx, key);
    return ret < 0 ? -1 : 0;
}

static int nx_state_write(JSContext *ctx, JSAtom name, JSValueConst value)
{
    NxBuf bytes = { 0 };
    bool is_new;
    NxKey *k;

    if (nx_send_key(ctx, name, value, &bytes))
        goto fail;
    /* looked up after the encoding, which may have run code that touched other keys */
    k = nx_find_key(ctx, name, &is_new);
    if (!k)
        goto fail;
    if (!JS_IsObject(value))
        nx_buf_free(ctx, &bytes);
    nx_fill_key(ctx, k, js_dup(value), js_dup(value), bytes.p, bytes.len, false);
    return 0;
fail:
    nx_buf_free(ctx, &bytes);
    return -1;
}

/* 1: it was there, 0: it was not, -1: exception */
static int nx_state_remove(JSContext *ctx, JSAtom name)
{
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    bool is_new;
    int32_t ret;
    NxKey *k;

    if (!key)
        return -1;
    ret = __nexus_state_delete((const uint8_t *)key, (uint32_t)key_len);
    if (ret < 0)
        nx_throw_host(ctx, ret, "state:write:", key, key_len);
    JS_FreeCString(ctx, key);
    if (ret < 0)
        return -1;
    k = nx_find_key(ctx, name, &is_new);
    if (!k)
        return -1;
    nx_fill_key(ctx, k, JS_UNINITIALIZED, JS_UNINITIALIZED, NULL, 0, false);
    return ret;
}

static int nx_state_contains(JSContext *ctx, JSAtom name)
{
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    int32_t ret;

    if (!key)
        return -1;
    ret = __nexus_state_has((const uint8_t *)key, (uint32_t)key_len);
    if (ret < 0)
        nx_throw_host(ctx, ret, "state:read:", key, key_len);
    JS_FreeCString(ctx, key);
    return ret < 0 ? -1 : ret;
}

/* All keys as an array of strings. */
static JSValue nx_state_keys(JSContext *ctx)
{
    uint8_t *bytes = NULL;
    int32_t capacity = 0, got;
    JSValue keys;

    for (;;) {
        got = __nexus_state_keys(bytes, (uint32_t)capacity);
        if (got < 0) {
            js_free(ctx, bytes);
            return nx_throw_host(ctx, got, "state:read:", "*", 1);
        }
        if (got <= capacity)
            break;
        js_free(ctx, bytes);
        capacity = got;
        bytes = js_malloc(ctx, capacity);
        if (!bytes)
            return JS_EXCEPTION;
    }
    keys = nx_decode_payload(ctx, bytes, (uint32_t)got);
    js_free(ctx, bytes);
    return keys;
}

static int nx_send_nested_writes(JSContext *ctx)
{
    uint32_t i;
    for (i = 0; i < nx.key_count; i++) {
        NxKey *k = &nx.keys[i];
        NxReader r = { k->bytes, k->bytes + k->bytes_len };
        NxBuf bytes = { 0 };
        JSValue value;
        JSAtom name;
        int failed;

        if (!k->bytes || nx_same(ctx, &r, k->value, 0))
            continue;
        value = js_dup(k->value);
        name = JS_DupAtom(ctx, k->name);
        failed = nx_encode(ctx, &bytes, value, NX_EFFECT_DEPTH);
        /* the same bytes: only the comparison was in doubt (a typed array, a Map) */
        if (!failed && !(bytes.len == nx.keys[i].bytes_len && !memcmp(bytes.p, nx.keys[i].bytes, bytes.len))) {
            bytes.len = 0;
            failed = nx_send_key(ctx, name, value, &bytes);
        }
        JS_FreeValue(ctx, value);
        JS_FreeAtom(ctx, name);
        if (failed) {
            nx_buf_free(ctx, &bytes);
            return -1;
        }
        js_free(ctx, nx.keys[i].bytes);
        nx.keys[i].bytes = bytes.p;
        nx.keys[i].bytes_len = bytes.len;
    }
    return 0;
}

/* Sets every key whose object was changed inside since the host last saw it. Runs at the end of each segment. */
static int nx_flush_nested_writes(JSContext *ctx)
{
    int failed;

    nx.no_calls++; /* getters of the values may run, and none of them may leave this half done */
    failed = nx_send_nested_writes(ctx);
    nx.no_calls--;
    return failed;
}

/* ---- the object ---- */

static bool nx_atom_is_symbol(JSContext *ctx, JSAtom atom)
{
    return JS_AtomGetKind(ctx, atom) != JS_ATOM_KIND_STRING;
}

static JSValue nx_state_get_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst receiver)
{
    JSProperty *pr;
    NxKey *k;

    (void)obj, (void)receiver;
    if (nx_atom_is_symbol(ctx, atom))
        return JS_UNDEFINED;
    if (find_own_property(&pr, JS_VALUE_GET_OBJ(nx.state_methods), atom))
        return js_dup(pr->u.value);
    /* the language itself looks these up (await, JSON, conversions): a handler that may not read them has not asked to */
    if (find_own_property(&pr, JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]), atom)) {
        k = nx_fetch_key(ctx, atom, true);
        if (k && JS_VALUE_GET_TAG(k->value) != JS_TAG_UNINITIALIZED)
            return js_dup(k->view);
        return JS_HasException(ctx) ? JS_EXCEPTION : JS_GetProperty(ctx, ctx->class_proto[JS_CLASS_OBJECT], atom);
    }
    return nx_state_read(ctx, atom, atom == JS_ATOM_then || atom == JS_ATOM_toJSON);
}

static int nx_refuse_symbol(JSContext *ctx)
{
    JS_ThrowTypeError(ctx, "keys of $state are strings");
    return -1;
}

static int nx_state_set_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst receiver, int flags)
{
    JSProperty *pr;

    (void)obj, (void)receiver, (void)flags;
    if (nx_atom_is_symbol(ctx, atom))
        return nx_refuse_symbol(ctx);
    if (find_own_property(&pr, JS_VALUE_GET_OBJ(nx.state_methods), atom)) {
        const char *name = JS_AtomToCString(ctx, atom);
        JS_ThrowTypeError(ctx, "'%s' is a method of $state; write the key with $state.set('%s', value)", name ? name : "", name ? name : "");
        JS_FreeCString(ctx, name);
        return -1;
    }
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
    NxKey *k;

    (void)obj;
    if (nx_atom_is_symbol(ctx, atom))
        return 0;
    if (!desc)
        return nx_state_contains(ctx, atom);
    k = nx_fetch_key(ctx, atom, false);
    if (!k)
        return -1;
    if (JS_VALUE_GET_TAG(k->value) == JS_TAG_UNINITIALIZED)
        return 0;
    desc->flags = JS_PROP_C_W_E;
    desc->getter = desc->setter = JS_UNDEFINED;
    desc->value = js_dup(k->view);
    return 1;
}

static int nx_state_define_own_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst getter,
                                        JSValueConst setter, int flags)
{
    (void)getter, (void)setter;
    if (!(flags & JS_PROP_HAS_VALUE)) {
        JS_ThrowTypeError(ctx, "$state holds values, not accessors");
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

static JSValue nx_state_method(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int which)
{
    JSValue ret = JS_UNDEFINED, old;
    JSAtom name;
    int n;

    (void)this_val;
    if (which == NX_KEYS)
        return nx_state_keys(ctx);
    if (argc < 1 || JS_IsSymbol(argv[0]))
        return JS_ThrowTypeError(ctx, "$state.%s needs the name of a key", nx_state_method_names[which]);
    name = JS_ValueToAtom(ctx, argv[0]);
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    switch (which) {
    case NX_GET:
        ret = nx_state_read(ctx, name, false);
        break;
    case NX_SET:
        ret = nx_state_write(ctx, name, argc > 1 ? argv[1] : JS_UNDEFINED) ? JS_EXCEPTION : js_dup(argc > 1 ? argv[1] : JS_UNDEFINED);
        break;
    case NX_UPDATE:
        if (argc < 2 || !JS_IsFunction(ctx, argv[1])) {
            ret = JS_ThrowTypeError(ctx, "$state.update needs a key and a function");
            break;
        }
        old = nx_state_read(ctx, name, false);
        if (JS_IsException(old)) {
            ret = old;
            break;
        }
        ret = JS_Call(ctx, argv[1], JS_UNDEFINED, 1, vc(&old));
        JS_FreeValue(ctx, old);
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

static int nx_init_state(JSContext *ctx)
{
    static const JSClassDef state_def = { "State", .exotic = &nx_state_exotic };
    size_t i;

    JS_NewClassID(nx.rt, &nx.state_class);
    if (JS_NewClass(nx.rt, nx.state_class, &state_def))
        return -1;
    nx.state_methods = JS_NewObjectProto(ctx, JS_NULL);
    for (i = 0; i < countof(nx_state_method_names); i++)
        JS_SetPropertyStr(ctx, nx.state_methods, nx_state_method_names[i],
                          JS_NewCFunctionMagic(ctx, nx_state_method, nx_state_method_names[i], 1, JS_CFUNC_generic_magic, (int)i));
    nx.key_index = JS_NewObjectProto(ctx, JS_NULL);
    nx.state_object = JS_NewObjectProtoClass(ctx, JS_NULL, nx.state_class);
    if (JS_IsException(nx.state_object) || nx_init_read_only_views(ctx))
        return -1;
    return JS_DefinePropertyValueStr(ctx, ctx->global_obj, "$state", js_dup(nx.state_object), JS_PROP_ENUMERABLE) < 0 ? -1 : 0;
}
