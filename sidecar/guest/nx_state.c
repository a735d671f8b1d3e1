/* $state: an object whose properties are the top-level keys of the state.
 *
 * Keys are fetched from the host when they are first read. The value is then kept, so that the same object comes back each
 * time; at the end of a segment every object that was handed out and may be written is compared with the encoding that the
 * host knows, and set anew when the handler has changed something inside it. Objects under keys that may not be written are
 * handed out behind a read-only view, see nx_views.c.
 *
 * The table of keys grows: entries are named by their place in it, and a pointer to one lives no longer than a few lines that
 * run no code. An entry is made when all of it is there, never before. */

static const char *const nx_state_method_names[] = { "get", "set", "delete", "has", "keys", "update" };

/* Place of a key's entry; -1: there is none. */
static int32_t nx_find_key(JSAtom name)
{
    JSProperty *pr;
    return find_own_property(&pr, JS_VALUE_GET_OBJ(nx.key_index), name) ? JS_VALUE_GET_INT(pr->u.value) : -1;
}

/* Makes the entry of a key, or replaces what is in it. Takes the values and bytes of k, also when it fails. Returns the entry's
 * place; -1: exception. */
static int32_t nx_put_key(JSContext *ctx, JSAtom name, NxKey k)
{
    int32_t at = nx_find_key(name);
    NxKey old;

    if (at < 0) {
        if (nx.key_count == nx.key_capacity) {
            uint32_t capacity = nx.key_capacity ? nx.key_capacity * 2 : 8;
            NxKey *keys = js_realloc(ctx, nx.keys, capacity * sizeof(*keys));
            if (!keys)
                goto fail;
            nx.keys = keys;
            nx.key_capacity = capacity;
        }
        if (JS_DefinePropertyValue(ctx, nx.key_index, name, JS_NewInt32(ctx, (int32_t)nx.key_count), JS_PROP_C_W_E) < 0)
            goto fail;
        at = (int32_t)nx.key_count++;
        nx.keys[at] = (NxKey){ JS_DupAtom(ctx, name), JS_UNINITIALIZED, JS_UNINITIALIZED, NULL, 0, false };
    }
    old = nx.keys[at];
    k.name = old.name;
    nx.keys[at] = k;
    JS_FreeValue(ctx, old.value);
    JS_FreeValue(ctx, old.view);
    js_free(ctx, old.bytes);
    return at;
fail:
    JS_FreeValue(ctx, k.value);
    JS_FreeValue(ctx, k.view);
    js_free(ctx, k.bytes);
    return -1;
}

/* A key's value as bytes. */
typedef struct NxFetched {
    int32_t got; /* NX_NOT_FOUND, NX_DENIED (only if that was asked quietly), or the length with its flag */
    uint8_t small[2048];
    uint8_t *large; /* what does not fit into `small`: to be freed */
} NxFetched;

/* Asks the host for a key's value. -1: exception. */
static int nx_fetch_bytes(JSContext *ctx, JSAtom name, bool quiet, NxFetched *f)
{
    uint32_t capacity = sizeof(f->small), asked = quiet ? NX_QUIET : 0;
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    int ret = -1;

    f->large = NULL;
    if (!key)
        return -1;
    if (nx_has_ended(ctx))
        goto done;
    for (;;) {
        f->got = __nexus_state_get((const uint8_t *)key, (uint32_t)key_len, f->large ? f->large : f->small, capacity | asked);
        if (f->got < 0 || (uint32_t)(f->got & ~NX_READ_ONLY) <= capacity)
            break;
        /* a larger value is asked for twice */
        capacity = (uint32_t)(f->got & ~NX_READ_ONLY);
        js_free(ctx, f->large);
        f->large = js_malloc(ctx, capacity);
        if (!f->large)
            goto done;
    }
    ret = 0;
    if (f->got < 0 && f->got != NX_NOT_FOUND && !(quiet && f->got == NX_DENIED)) {
        nx_throw_host(ctx, f->got);
        ret = -1;
    }
done:
    JS_FreeCString(ctx, key);
    if (ret) {
        js_free(ctx, f->large);
        f->large = NULL;
    }
    return ret;
}

/* The encoding by which writes inside of a value are found, into k. The client's own serves when decoding it is all that there
 * is to it; else it is ours of what was decoded. */
static int nx_keep_bytes(JSContext *ctx, NxKey *k, NxFetched *f, bool has_duplicates)
{
    NxBuf own = { 0 };

    if (!JS_IsObject(k->value) || k->read_only)
        return 0;
    if (has_duplicates) {
        if (nx_encode(ctx, &own, k->value, 0)) {
            nx_buf_free(ctx, &own);
            return -1;
        }
        k->bytes = own.p;
        k->bytes_len = own.len;
        return 0;
    }
    k->bytes_len = (uint32_t)f->got;
    k->bytes = f->large;
    f->large = NULL;
    if (k->bytes)
        return 0;
    k->bytes = js_malloc(ctx, k->bytes_len);
    if (!k->bytes)
        return -1;
    memcpy(k->bytes, f->small, k->bytes_len);
    return 0;
}

/* The entry of a key, its value fetched. 1: *at is its place, 0: it may not be read and that was asked quietly, -1: exception.
 * Runs no code of the handler. */
static int nx_fetch_key(JSContext *ctx, JSAtom name, bool quiet, int32_t *at)
{
    NxKey k = { JS_ATOM_NULL, JS_UNINITIALIZED, JS_UNINITIALIZED, NULL, 0, false };
    NxFetched f;
    NxReader r;
    int failed;

    *at = nx_find_key(name);
    if (*at >= 0)
        return 1;
    if (nx_fetch_bytes(ctx, name, quiet, &f))
        return -1;
    if (f.got == NX_DENIED)
        return 0;
    if (f.got >= 0) {
        k.read_only = (f.got & NX_READ_ONLY) != 0;
        f.got &= ~NX_READ_ONLY;
        r = (NxReader){ .p = f.large ? f.large : f.small, .end = (f.large ? f.large : f.small) + f.got, .seals = !k.read_only };
        k.value = nx_decode_whole(ctx, &r);
        failed = JS_IsException(k.value);
        if (!failed) {
            k.view = k.read_only ? nx_read_only_root(ctx, k.value, name) : js_dup(k.value);
            failed = JS_IsException(k.view) || nx_keep_bytes(ctx, &k, &f, r.has_duplicates);
        }
        js_free(ctx, f.large);
        if (failed) {
            JS_FreeValue(ctx, k.value);
            JS_FreeValue(ctx, k.view);
            return -1;
        }
    }
    *at = nx_put_key(ctx, name, k);
    return *at < 0 ? -1 : 1;
}

/* What the handler sees of an entry. */
static JSValue nx_view_of(int32_t at)
{
    return JS_VALUE_GET_TAG(nx.keys[at].value) == JS_TAG_UNINITIALIZED ? JS_UNDEFINED : js_dup(nx.keys[at].view);
}

static JSValue nx_state_read(JSContext *ctx, JSAtom name)
{
    int32_t at;
    return nx_fetch_key(ctx, name, false, &at) < 0 ? JS_EXCEPTION : nx_view_of(at);
}

/* Sends the encoding of a key's value to the host. */
static int nx_send_key(JSContext *ctx, JSAtom name, const NxBuf *bytes)
{
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    int32_t ret = -1;

    if (!key)
        return -1;
    if (!nx_has_ended(ctx)) {
        ret = __nexus_state_set((const uint8_t *)key, (uint32_t)key_len, bytes->p, bytes->len);
        if (ret < 0)
            nx_throw_host(ctx, ret);
    }
    JS_FreeCString(ctx, key);
    return ret < 0 ? -1 : 0;
}

/* State is data: of a value that code was asked for (accessors, Proxies) what was sent is kept, as the host has it. Any other
 * value is kept itself, so that later writes inside of it are found. */
static int nx_state_write(JSContext *ctx, JSAtom name, JSValueConst value)
{
    NxKey k = { JS_ATOM_NULL, JS_UNDEFINED, JS_UNDEFINED, NULL, 0, false };
    NxBuf bytes = { .seals = true };
    NxReader sent;

    if (nx_encode(ctx, &bytes, value, NX_EFFECT_DEPTH) || nx_send_key(ctx, name, &bytes))
        goto fail;
    sent = (NxReader){ .p = bytes.p, .end = bytes.p + bytes.len, .seals = true };
    k.value = bytes.ran_code ? nx_decode_whole(ctx, &sent) : js_dup(value);
    if (JS_IsException(k.value))
        goto fail;
    k.view = js_dup(k.value);
    if (JS_IsObject(k.value)) {
        k.bytes = bytes.p;
        k.bytes_len = bytes.len;
    } else {
        nx_buf_free(ctx, &bytes);
    }
    return nx_put_key(ctx, name, k) < 0 ? -1 : 0;
fail:
    nx_buf_free(ctx, &bytes);
    return -1;
}

/* 1: it was there, 0: it was not, -1: exception */
static int nx_state_remove(JSContext *ctx, JSAtom name)
{
    NxKey gone = { JS_ATOM_NULL, JS_UNINITIALIZED, JS_UNINITIALIZED, NULL, 0, false };
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    int32_t ret = -1;

    if (!key)
        return -1;
    if (!nx_has_ended(ctx)) {
        ret = __nexus_state_delete((const uint8_t *)key, (uint32_t)key_len);
        if (ret < 0)
            nx_throw_host(ctx, ret);
    }
    JS_FreeCString(ctx, key);
    if (ret < 0 || nx_put_key(ctx, name, gone) < 0)
        return -1;
    return ret;
}

static int nx_state_contains(JSContext *ctx, JSAtom name)
{
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    int32_t ret = -1;

    if (!key)
        return -1;
    if (!nx_has_ended(ctx)) {
        ret = __nexus_state_has((const uint8_t *)key, (uint32_t)key_len);
        if (ret < 0)
            nx_throw_host(ctx, ret);
    }
    JS_FreeCString(ctx, key);
    return ret < 0 ? -1 : ret;
}

/* All keys as an array of strings, in the order of an object's properties, which the host gives them. */
static JSValue nx_state_keys(JSContext *ctx)
{
    uint8_t *bytes = NULL;
    int32_t capacity = 0, got;
    JSValue keys;

    if (nx_has_ended(ctx))
        return JS_EXCEPTION;
    for (;;) {
        got = __nexus_state_keys(bytes, (uint32_t)capacity);
        if (got < 0) {
            js_free(ctx, bytes);
            return nx_throw_host(ctx, got);
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

/* Whether an entry still holds what was taken from it before code ran. */
static bool nx_still_holds(uint32_t at, JSValueConst value)
{
    return nx.keys[at].bytes && JS_VALUE_GET_PTR(nx.keys[at].value) == JS_VALUE_GET_PTR(value);
}

/* Encodes an entry's value anew, and sends that if it is not what the host knows. Encoding may run code. */
static int nx_send_if_changed(JSContext *ctx, uint32_t at)
{
    JSValue value = js_dup(nx.keys[at].value);
    JSAtom name = JS_DupAtom(ctx, nx.keys[at].name);
    NxBuf bytes = { .seals = true };
    int failed = nx_encode(ctx, &bytes, value, NX_EFFECT_DEPTH);

    /* code that ran meanwhile may have set the key itself, which sent it; the same bytes: there was only something in it that no
     * decoding gives (a Map) */
    if (!failed && nx_still_holds(at, value) &&
        (bytes.len != nx.keys[at].bytes_len || memcmp(bytes.p, nx.keys[at].bytes, bytes.len))) {
        failed = nx_send_key(ctx, name, &bytes);
        if (!failed) {
            js_free(ctx, nx.keys[at].bytes);
            nx.keys[at].bytes = bytes.p;
            nx.keys[at].bytes_len = bytes.len;
            bytes.p = NULL;
        }
    }
    nx_buf_free(ctx, &bytes);
    JS_FreeValue(ctx, value);
    JS_FreeAtom(ctx, name);
    return failed;
}

/* Sets every key whose object was changed inside since the host last saw it. Runs at the end of each segment. For a handler
 * that has failed, what cannot be sent does not keep the rest from being sent. */
static int nx_flush_nested_writes(JSContext *ctx)
{
    uint32_t i;
    int failed = 0;

    nx.no_calls++; /* getters of the values may run, and none of them may leave this half done */
    for (i = 0; i < nx.key_count && !failed; i++) {
        NxReader r = { .p = nx.keys[i].bytes, .end = nx.keys[i].bytes + nx.keys[i].bytes_len };
        int same = nx.keys[i].bytes ? nx_same(ctx, &r, nx.keys[i].value, 0) : 1;
        failed = same < 0 || (same == 0 && nx_send_if_changed(ctx, i));
        if (failed && nx.leaving) {
            JS_FreeValue(ctx, JS_GetException(ctx));
            failed = 0;
        }
    }
    nx.no_calls--;
    return failed;
}

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

static int nx_state_set_property(JSContext *ctx, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst receiver, int flags)
{
    (void)obj, (void)receiver, (void)flags;
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
