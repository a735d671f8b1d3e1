/* JavaScript values to MessagePack, by the table of protocol/SPEC.md section 5.
 *
 * Encoding may run the handler's code (getters, Proxy traps): nothing here keeps a pointer into an object across a
 * property read, and the buffer says whether any code may have run. Of plain data none does. */

/* Reads a property, and notes whether that may run code. */
static JSValue nx_read(JSContext *ctx, NxBuf *b, JSValueConst obj, JSAtom name)
{
    JSValueConst v;
    JSValue data;
    int found;

    if (nx_peek(JS_VALUE_GET_OBJ(obj), name, &v))
        return js_dup(v);
    found = nx_find_data(ctx, JS_VALUE_GET_OBJ(obj), name, &data);
    if (found || b->looks_only)
        return found < 0 ? JS_EXCEPTION : data;
    b->ran_code = true;
    return JS_GetProperty(ctx, obj, name);
}

static int nx_encode(JSContext *ctx, NxBuf *b, JSValueConst v, int depth);

static bool nx_is_dropped(JSContext *ctx, JSValueConst v)
{
    return JS_IsFunction(ctx, v) || JS_IsSymbol(v);
}

static int nx_encode_array(JSContext *ctx, NxBuf *b, JSValueConst v, int depth)
{
    int64_t len, i;

    if (js_get_length64(ctx, &len, v))
        return -1;
    if (len > INT32_MAX / 16) {
        nx_throw_serialization(ctx, "an array is too long to leave the sandbox");
        return -1;
    }
    if (nx_put_array_header(ctx, b, (uint32_t)len))
        return -1;
    for (i = 0; i < len; i++) {
        /* fast arrays are read in place, but looked at anew each time: a getter further down may have changed them */
        JSObject *p = JS_VALUE_GET_OBJ(v);
        JSValue item;
        int ret;
        if (p->class_id == JS_CLASS_ARRAY && p->fast_array && i < p->u.array.count)
            item = js_dup(p->u.array.u.values[i]);
        else
            item = nx_read(ctx, b, v, __JS_AtomFromUInt32((uint32_t)i));
        if (JS_IsException(item))
            return -1;
        ret = nx_encode(ctx, b, item, depth);
        JS_FreeValue(ctx, item);
        if (ret)
            return -1;
    }
    return 0;
}

/* The number of entries is known only when functions have been dropped: room is left for the header, and it is filled in last. */
static void nx_patch_map_header(NxBuf *b, uint32_t at, uint32_t room, uint32_t n)
{
    if (room == 1)
        b->p[at] = (uint8_t)(0x80 | n);
    else if (room == 3)
        b->p[at] = 0xde, b->p[at + 1] = (uint8_t)(n >> 8), b->p[at + 2] = (uint8_t)n;
    else
        b->p[at] = 0xdf, b->p[at + 1] = (uint8_t)(n >> 24), b->p[at + 2] = (uint8_t)(n >> 16), b->p[at + 3] = (uint8_t)(n >> 8),
        b->p[at + 4] = (uint8_t)n;
}

static int nx_begin_map(JSContext *ctx, NxBuf *b, uint32_t at_most, uint32_t *at, uint32_t *room)
{
    *at = b->len;
    *room = at_most <= 15 ? 1 : at_most <= 0xffff ? 3 : 5;
    if (nx_buf_reserve(ctx, b, *room))
        return -1;
    b->len += *room;
    return 0;
}

static int nx_put_atom(JSContext *ctx, NxBuf *b, JSAtom atom)
{
    JSValue s = JS_AtomToString(ctx, atom);
    int ret;
    if (JS_IsException(s))
        return -1;
    ret = nx_put_js_string(ctx, b, s);
    JS_FreeValue(ctx, s);
    return ret;
}

/* Notes a key as the text that it is outside of the sandbox. Takes text. -1: exception, another key has the same, and one of them
 * would be lost. */
static int nx_note_key(JSContext *ctx, JSValueConst names, const char *of, JSValue text)
{
    JSValue well_formed = JS_IsException(text) ? JS_EXCEPTION : js_string_toWellFormed(ctx, text, 0, NULL);
    JSAtom name = JS_IsException(well_formed) ? JS_ATOM_NULL : JS_ValueToAtom(ctx, well_formed);
    char buf[ATOM_GET_STR_BUF_SIZE];
    NxMessage m = { .len = 0 };
    JSProperty *pr;
    int ret = -1;

    JS_FreeValue(ctx, text);
    JS_FreeValue(ctx, well_formed);
    if (name == JS_ATOM_NULL)
        return -1;
    if (find_own_property(&pr, JS_VALUE_GET_OBJ(names), name)) {
        nx_say(&m, of);
        nx_say(&m, " has two keys that are \"");
        nx_say(&m, JS_AtomGetStr(ctx, buf, sizeof(buf), name));
        nx_say(&m, "\" as text, as all keys are outside of the sandbox: one of them would be lost");
        m.text[m.len] = 0;
        nx_throw_serialization(ctx, m.text);
    } else {
        ret = JS_DefinePropertyValue(ctx, names, name, JS_TRUE, JS_PROP_C_W_E) < 0 ? -1 : 0;
    }
    JS_FreeAtom(ctx, name);
    return ret;
}

/* Whether keys of which some have half of a surrogate pair, which no text has, are different as text. -1: exception, they are not. */
static int nx_check_keys(JSContext *ctx, const JSPropertyEnum *keys, uint32_t count)
{
    JSValue names = JS_NewObjectProto(ctx, JS_NULL);
    int ret = JS_IsException(names) ? -1 : 0;
    uint32_t i;

    for (i = 0; i < count && !ret; i++)
        ret = nx_note_key(ctx, names, "an object", JS_AtomToString(ctx, keys[i].atom));
    JS_FreeValue(ctx, names);
    return ret;
}

static int nx_encode_object(JSContext *ctx, NxBuf *b, JSValueConst v, int depth)
{
    JSPropertyEnum *names;
    uint32_t count, i, at, room, written = 0;
    bool mended = false;
    int ret = -1;

    if (JS_GetOwnPropertyNames(ctx, &names, &count, v, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    if (nx_begin_map(ctx, b, count, &at, &room))
        goto done;
    for (i = 0; i < count; i++) {
        JSValue item = nx_read(ctx, b, v, names[i].atom);
        int failed;
        if (JS_IsException(item))
            goto done;
        if (nx_is_dropped(ctx, item)) {
            JS_FreeValue(ctx, item);
            continue;
        }
        b->mended = false;
        failed = nx_put_atom(ctx, b, names[i].atom);
        mended |= b->mended;
        failed = failed || nx_encode(ctx, b, item, depth);
        JS_FreeValue(ctx, item);
        if (failed)
            goto done;
        written++;
    }
    nx_patch_map_header(b, at, room, written);
    ret = mended ? nx_check_keys(ctx, names, count) : 0;
done:
    JS_FreePropertyEnum(ctx, names, count);
    return ret;
}

/* What keys of one kind are as text is different for any two of them, unless some have half of a surrogate pair. */
static unsigned nx_kind_of_key(JSValueConst key)
{
    switch (JS_VALUE_GET_NORM_TAG(key)) {
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE: return 1;
    case JS_TAG_INT:
    case JS_TAG_FLOAT64: return 2;
    case JS_TAG_SHORT_BIG_INT:
    case JS_TAG_BIG_INT: return 4;
    default: return 8; /* null, undefined, true, false */
    }
}

/* Whether it has characters that are written in two bytes, of which some may be half of a surrogate pair. */
static bool nx_is_wide(JSValueConst key)
{
    return JS_VALUE_GET_TAG(key) == JS_TAG_STRING_ROPE || (JS_IsString(key) && JS_VALUE_GET_STRING(key)->is_wide_char);
}

/* Map and Set: the entries are copied out first, since encoding one may run code that changes the collection. */
static int nx_encode_collection(JSContext *ctx, NxBuf *b, JSValueConst v, bool is_map, int depth)
{
    JSMapState *s = JS_VALUE_GET_OBJ(v)->u.map_state;
    uint32_t count = s->record_count, n = 0, i, at, room, written = 0;
    JSValue *entries = js_malloc(ctx, sizeof(JSValue) * 2 * (count + 1));
    JSValue names = JS_UNDEFINED;
    struct list_head *el;
    unsigned kinds = 0;
    int ret = -1;

    if (!entries)
        return -1;
    list_for_each(el, &s->records) {
        JSMapRecord *r = list_entry(el, JSMapRecord, link);
        if (r->empty || n == count)
            continue;
        kinds |= nx_kind_of_key(r->key) | (nx_is_wide(r->key) ? 16 : 0);
        entries[2 * n] = js_dup(r->key);
        entries[2 * n + 1] = is_map ? js_dup(r->value) : JS_UNDEFINED;
        n++;
    }
    if (is_map && kinds & (kinds - 1)) {
        names = JS_NewObjectProto(ctx, JS_NULL);
        if (JS_IsException(names))
            goto done;
    }
    if (is_map ? nx_begin_map(ctx, b, n, &at, &room) : nx_put_array_header(ctx, b, n))
        goto done;
    for (i = 0; i < n; i++) {
        JSValue key = entries[2 * i], value = entries[2 * i + 1];
        if (!is_map) {
            if (nx_encode(ctx, b, key, depth))
                goto done;
            continue;
        }
        if (JS_IsObject(key) || JS_IsSymbol(key)) {
            nx_throw_serialization(ctx, "a Map with objects as keys cannot leave the sandbox");
            goto done;
        }
        if (nx_is_dropped(ctx, value))
            continue;
        key = JS_ToString(ctx, key);
        if (JS_IsException(key))
            goto done;
        if ((!JS_IsUndefined(names) && nx_note_key(ctx, names, "a Map", js_dup(key))) || nx_put_js_string(ctx, b, key) ||
            nx_encode(ctx, b, value, depth)) {
            JS_FreeValue(ctx, key);
            goto done;
        }
        JS_FreeValue(ctx, key);
        written++;
    }
    if (is_map)
        nx_patch_map_header(b, at, room, written);
    ret = 0;
done:
    for (i = 0; i < 2 * n; i++)
        JS_FreeValue(ctx, entries[i]);
    JS_FreeValue(ctx, names);
    js_free(ctx, entries);
    return ret;
}

static int nx_encode_error(JSContext *ctx, NxBuf *b, JSValueConst v)
{
    static const char *const fields[2] = { "name", "message" };
    int i;

    if (nx_put_map_header(ctx, b, 2))
        return -1;
    for (i = 0; i < 2; i++) {
        JSValue field = nx_read(ctx, b, v, i ? JS_ATOM_message : JS_ATOM_name), text;
        int failed;
        if (JS_IsObject(field)) {
            if (b->looks_only) {
                JS_FreeValue(ctx, field);
                field = JS_NULL;
            } else {
                b->ran_code = true;
            }
        }
        text = JS_IsException(field) ? field : JS_ToString(ctx, field);
        JS_FreeValue(ctx, field);
        if (JS_IsException(text))
            return -1;
        failed = nx_put_str(ctx, b, fields[i], (uint32_t)strlen(fields[i])) || nx_put_js_string(ctx, b, text);
        JS_FreeValue(ctx, text);
        if (failed)
            return -1;
    }
    return 0;
}

/* ArrayBuffer and its views as bin. Returns 1 when v is none of them. */
static int nx_encode_bytes(JSContext *ctx, NxBuf *b, JSValueConst v, int class_id)
{
    uint8_t *data;
    uint32_t len;

    if (class_id != JS_CLASS_ARRAY_BUFFER && !nx_is_view(class_id))
        return 1;
    switch (nx_bytes_of(JS_VALUE_GET_OBJ(v), &data, &len)) {
    case NX_WITHIN:
        return nx_put_bin(ctx, b, data, len);
    case NX_DETACHED:
        nx_throw_serialization(ctx, "a detached ArrayBuffer cannot leave the sandbox");
        return -1;
    default:
        nx_throw_serialization(ctx, "a view is out of the bounds of its buffer");
        return -1;
    }
}

/* What a promise comes to, in its place; else a hole. Of all values the result alone can wait. */
static int nx_encode_promise(JSContext *ctx, NxBuf *b, JSValueConst v, int depth)
{
    JSValue value;
    int ret;

    if (!b->awaits) {
        nx_throw_serialization(ctx, "a promise cannot leave the sandbox: await it, and send what it comes to");
        return -1;
    }
    if (JS_PromiseState(ctx, v) == JS_PROMISE_PENDING) {
        if (nx.hole_count == nx.hole_capacity) {
            uint32_t capacity = nx.hole_capacity ? nx.hole_capacity * 2 : 4;
            NxHole *holes = js_realloc(ctx, nx.holes, capacity * sizeof(*holes));
            if (!holes)
                return -1;
            nx.holes = holes;
            nx.hole_capacity = capacity;
        }
        nx.holes[nx.hole_count++] = (NxHole){ js_dup(v), b->len, depth };
        return 0;
    }
    value = JS_PromiseResult(ctx, v);
    if (JS_PromiseState(ctx, v) == JS_PROMISE_REJECTED) {
        JS_Throw(ctx, value);
        return -1;
    }
    ret = nx_encode(ctx, b, value, depth);
    JS_FreeValue(ctx, value);
    return ret;
}

static int nx_encode_boxed(JSContext *ctx, NxBuf *b, JSValueConst v, int depth)
{
    JSObject *p = JS_VALUE_GET_OBJ(v);
    JSValue inner;
    int ret;

    switch (p->class_id) {
    case JS_CLASS_DATE:
        return nx_put_date(ctx, b, nx_number(p->u.object_data));
    case JS_CLASS_NUMBER:
    case JS_CLASS_STRING:
    case JS_CLASS_BOOLEAN:
    case JS_CLASS_BIG_INT:
        inner = js_dup(p->u.object_data);
        ret = nx_encode(ctx, b, inner, depth);
        JS_FreeValue(ctx, inner);
        return ret;
    case JS_CLASS_MAP:
        return nx_encode_collection(ctx, b, v, true, depth + 1);
    case JS_CLASS_SET:
        return nx_encode_collection(ctx, b, v, false, depth + 1);
    case JS_CLASS_ERROR:
        return nx_encode_error(ctx, b, v);
    case JS_CLASS_PROMISE:
        return nx_encode_promise(ctx, b, v, depth);
    default:
        return nx_encode_bytes(ctx, b, v, p->class_id);
    }
}

static int nx_encode(JSContext *ctx, NxBuf *b, JSValueConst v, int depth)
{
    int ret;

    switch (JS_VALUE_GET_NORM_TAG(v)) {
    case JS_TAG_INT:
        return nx_put_int(ctx, b, JS_VALUE_GET_INT(v));
    case JS_TAG_FLOAT64:
        return nx_put_double(ctx, b, JS_VALUE_GET_FLOAT64(v));
    case JS_TAG_BOOL:
        return nx_put_tagged(ctx, b, JS_VALUE_GET_BOOL(v) ? 0xc3 : 0xc2, 0, 0);
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        return nx_put_js_string(ctx, b, v);
    case JS_TAG_SHORT_BIG_INT:
    case JS_TAG_BIG_INT:
        return nx_put_bigint(ctx, b, v);
    case JS_TAG_OBJECT:
        break;
    case JS_TAG_NULL:
    case JS_TAG_UNDEFINED:
    case JS_TAG_SYMBOL:
        return nx_put_nil(ctx, b);
    default:
        nx_throw_end(ctx, "no value of JavaScript"); /* not to be met with: QuickJS's own marks */
        return -1;
    }
    if (nx_may_only_be_read(ctx, v)) {
        b->met_view = true;
        if (nx_is_read_only_view(v))
            v = JS_VALUE_GET_OBJ(v)->u.proxy_data->target;
    }
    while (b->looks_only && JS_VALUE_GET_OBJ(v)->class_id == JS_CLASS_PROXY) {
        if (JS_VALUE_GET_OBJ(v)->u.proxy_data->is_revoked)
            return nx_put_nil(ctx, b);
        v = JS_VALUE_GET_OBJ(v)->u.proxy_data->target;
    }
    if (JS_IsFunction(ctx, v) || (b->looks_only && JS_VALUE_GET_OBJ(v)->class_id >= JS_CLASS_INIT_COUNT))
        return nx_put_nil(ctx, b);
    if (depth >= NX_MAX_DEPTH) {
        nx_throw_serialization(ctx, "a value is cyclic, or nested deeper than 64 levels");
        return -1;
    }
    if (js_check_stack_overflow(ctx->rt, 0)) {
        nx_throw(ctx, JS_RANGE_ERROR, "Maximum call stack size exceeded");
        return -1;
    }
    /* what is asked there for its keys is not this value itself */
    if (JS_VALUE_GET_OBJ(v)->class_id == JS_CLASS_PROXY || JS_VALUE_GET_OBJ(v)->class_id == nx.state_class)
        b->ran_code = true;
    if (b->seals && nx_keep_in_state(ctx, v))
        return -1;
    ret = nx_encode_boxed(ctx, b, v, depth);
    if (ret <= 0)
        return ret;
    ret = js_is_array(ctx, v);
    if (ret < 0)
        return -1;
    return ret ? nx_encode_array(ctx, b, v, depth + 1) : nx_encode_object(ctx, b, v, depth + 1);
}
