/* The keys of $state that an execution has touched.
 *
 * A key is fetched from the host when it is first read. The value is then kept, so that the same object comes back each
 * time; at the end of a segment every object that was handed out and may be written is compared with the encoding that the
 * host knows, and set anew when the handler has changed something inside it. Objects under keys that may not be written are
 * handed out behind a read-only view, see nx_views.c.
 *
 * The table of keys grows: entries are named by their place in it, and a pointer to one lives no longer than a few lines that
 * run no code. An entry is made when all of it is there, never before. */

static const NxKey nx_no_key = { .value = JS_UNINITIALIZED, .view = JS_UNINITIALIZED, .source = JS_UNDEFINED };

static void nx_free_key(JSContext *ctx, NxKey *k)
{
    JS_FreeValue(ctx, k->value);
    JS_FreeValue(ctx, k->view);
    JS_FreeValue(ctx, k->source);
    js_free(ctx, k->bytes);
    js_free(ctx, k->seen);
}

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
        nx.keys[at] = nx_no_key;
        nx.keys[at].name = JS_DupAtom(ctx, name);
    }
    old = nx.keys[at];
    k.name = old.name;
    nx.keys[at] = k;
    nx_free_key(ctx, &old);
    return at;
fail:
    nx_free_key(ctx, &k);
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
    NxKey k = nx_no_key;
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
            nx_free_key(ctx, &k);
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

/* What can be seen of a value without running code. 1: seen has it, 0: it cannot be written down, -1: exception. */
static int nx_look_at(JSContext *ctx, NxBuf *seen, JSValueConst value)
{
    *seen = (NxBuf){ .looks_only = true };
    if (!nx_encode(ctx, seen, value, NX_EFFECT_DEPTH))
        return 1;
    nx_buf_free(ctx, seen);
    return nx_is_for_memory(ctx->rt->current_exception) || !nx_swallow(ctx) ? -1 : 0;
}

/* ---- what may only be read, and is put under a key that may be written ---- */

/* A value of its own in place of what may only be read. Runs no code: what is behind a view is what was decoded. */
static JSValue nx_copy_of(JSContext *ctx, JSValueConst view)
{
    NxBuf bytes = { 0 };
    JSValue copy = JS_EXCEPTION;

    if (!nx_encode(ctx, &bytes, view, 0)) {
        NxReader r = { .p = bytes.p, .end = bytes.p + bytes.len, .seals = true };
        copy = nx_decode_whole(ctx, &r);
    }
    nx_buf_free(ctx, &bytes);
    return copy;
}

static int nx_take_over(JSContext *ctx, JSValueConst v, int depth);

static int nx_take_over_at(JSContext *ctx, JSValue *place, bool is_writable, int depth)
{
    JSValue copy;

    if (!nx_may_only_be_read(ctx, *place))
        return JS_IsObject(*place) ? nx_take_over(ctx, *place, depth + 1) : 0;
    if (!is_writable)
        return 0;
    copy = nx_copy_of(ctx, *place);
    if (JS_IsException(copy))
        return -1;
    set_value(ctx, place, copy);
    return 0;
}

/* What may only be read, in a value that has come into the state, becomes a value of its own: what is written into it is a change of the key
 * that it is under now, and asks for no more than that. Runs no code. -1: exception. */
static int nx_take_over(JSContext *ctx, JSValueConst v, int depth)
{
    JSObject *p = JS_VALUE_GET_OBJ(v);
    int i;

    if (depth >= NX_MAX_DEPTH || (p->class_id != JS_CLASS_OBJECT && p->class_id != JS_CLASS_ARRAY))
        return 0;
    for (i = 0; i < p->shape->prop_count; i++) {
        int flags = get_shape_prop(p->shape)[i].flags;
        if (get_shape_prop(p->shape)[i].atom != JS_ATOM_NULL && !(flags & JS_PROP_TMASK) &&
            nx_take_over_at(ctx, &p->prop[i].u.value, flags & JS_PROP_WRITABLE, depth))
            return -1;
    }
    if (p->class_id == JS_CLASS_ARRAY && p->fast_array)
        for (i = 0; (uint32_t)i < p->u.array.count; i++)
            if (nx_take_over_at(ctx, &p->u.array.u.values[i], true, depth))
                return -1;
    return 0;
}

/* State is data: of a value that code was asked for (accessors, Proxies) what was sent is kept, as the host has it, and it is noted how
 * that value looked, see nx_refuse_stray. Any other value is kept itself, so that later writes inside of it are found. */
static int nx_state_write(JSContext *ctx, JSAtom name, JSValueConst value)
{
    NxKey k = nx_no_key;
    NxBuf bytes = { .seals = true }, seen = { 0 };
    NxReader sent;
    int looked = 0;

    if (nx_is_dropped(ctx, value)) {
        nx_throw(ctx, JS_TYPE_ERROR, "$state holds values, no functions and no symbols");
        return -1;
    }
    if (nx_encode(ctx, &bytes, value, NX_EFFECT_DEPTH) || nx_send_key(ctx, name, &bytes))
        goto fail;
    sent = (NxReader){ .p = bytes.p, .end = bytes.p + bytes.len, .seals = true };
    k.value = bytes.ran_code || nx_may_only_be_read(ctx, value) ? nx_decode_whole(ctx, &sent) : js_dup(value);
    if (JS_IsException(k.value))
        goto fail;
    if (bytes.met_view && JS_IsObject(k.value) && nx_take_over(ctx, k.value, 0)) {
        JS_FreeValue(ctx, k.value);
        goto fail;
    }
    k.view = js_dup(k.value);
    if (bytes.ran_code)
        looked = nx_look_at(ctx, &seen, value);
    if (looked > 0 && nx_put(ctx, &seen, bytes.p, bytes.len)) {
        nx_buf_free(ctx, &seen);
        looked = -1;
    }
    if (looked < 0) {
        JS_FreeValue(ctx, k.value);
        JS_FreeValue(ctx, k.view);
        goto fail;
    }
    if (looked) {
        k.source = js_dup(value);
        k.seen = seen.p;
        k.seen_len = seen.len;
    }
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

/* A host call about a key by its name alone. 1: it is there (or was), 0: it is not, -1: exception. */
static int nx_ask_about(JSContext *ctx, JSAtom name, bool removes)
{
    size_t key_len;
    const char *key = JS_AtomToCStringLen(ctx, &key_len, name);
    const uint8_t *bytes = (const uint8_t *)key;
    int32_t ret = -1;

    if (!key)
        return -1;
    if (!nx_has_ended(ctx)) {
        ret = removes ? __nexus_state_delete(bytes, (uint32_t)key_len) : __nexus_state_has(bytes, (uint32_t)key_len);
        if (ret < 0)
            nx_throw_host(ctx, ret);
    }
    JS_FreeCString(ctx, key);
    return ret < 0 ? -1 : ret;
}

static int nx_state_remove(JSContext *ctx, JSAtom name)
{
    int was_there = nx_ask_about(ctx, name, true);
    return was_there < 0 || nx_put_key(ctx, name, nx_no_key) < 0 ? -1 : was_there;
}

static int nx_state_contains(JSContext *ctx, JSAtom name)
{
    return nx_ask_about(ctx, name, false);
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
        failed = nx_send_key(ctx, name, &bytes) || (bytes.met_view && nx_take_over(ctx, value, 0));
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

/* Asks a value's accessors and Proxies once more, behind what was seen of it. No call of the host or of an extension comes of that: one that
 * needs such a call has no other answer. 1: seen has the answers, 0: there are none, -1: exception. */
static int nx_ask_again(JSContext *ctx, NxBuf *seen, JSValueConst value)
{
    int failed;

    seen->looks_only = false;
    nx.asks_again = true;
    failed = nx_encode(ctx, seen, value, NX_EFFECT_DEPTH);
    nx.asks_again = false;
    if (!failed)
        return 1;
    return nx_is_for_memory(ctx->rt->current_exception) || !nx_swallow(ctx) ? -1 : 0;
}

/* Whether the source of an entry's copy still is, and gives, what it was and gave when it was put there. -1: exception. */
static int nx_is_as_given(JSContext *ctx, uint32_t at)
{
    JSValue source = js_dup(nx.keys[at].source);
    NxBuf seen;
    int ret = nx_look_at(ctx, &seen, source);

    if (ret > 0) {
        ret = seen.len <= nx.keys[at].seen_len && !memcmp(seen.p, nx.keys[at].seen, seen.len);
        if (ret) {
            int asked = nx_ask_again(ctx, &seen, source);
            const NxKey *k = &nx.keys[at];
            /* code that ran may have put another value there */
            if (asked < 0)
                ret = -1;
            else if (asked && JS_IsObject(k->source) && JS_VALUE_GET_OBJ(k->source) == JS_VALUE_GET_OBJ(source))
                ret = seen.len == k->seen_len && !memcmp(seen.p, k->seen, seen.len);
        }
        nx_buf_free(ctx, &seen);
    }
    JS_FreeValue(ctx, source);
    return ret;
}

/* What the handler has put into the state, of which the state has a copy, was changed afterwards: the change is in no copy. */
static int nx_refuse_stray(JSContext *ctx, uint32_t at)
{
    char name[ATOM_GET_STR_BUF_SIZE];
    NxMessage m = { .len = 0 };
    int same;

    if (likely(JS_IsUndefined(nx.keys[at].source)))
        return 0;
    same = nx_is_as_given(ctx, at);
    if (same)
        return same < 0 ? -1 : 0;
    JS_AtomGetStr(ctx, name, sizeof(name), nx.keys[at].name);
    nx_say(&m, "what was put into $state.");
    nx_say(&m, name);
    nx_say(&m, " was changed afterwards, and the state has a copy of it, since it has accessors or a Proxy in it: change $state.");
    nx_say(&m, name);
    nx_say(&m, " instead, or put it there again");
    nx_throw_message(ctx, JS_TYPE_ERROR, &m);
    return -1;
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
        failed = same < 0 || (same == 0 && nx_send_if_changed(ctx, i)) || nx_refuse_stray(ctx, i);
        if (failed && nx.leaving) {
            JS_FreeValue(ctx, JS_GetException(ctx));
            failed = 0;
        }
    }
    nx.no_calls--;
    return failed;
}
