/* JavaScript values to MessagePack, by the table of protocol/SPEC.md section 5.
 *
 * Encoding may run the handler's code (getters, Proxy traps): nothing here keeps a pointer into an object across a
 * property read, and the buffer says whether any code may have run. Of plain data none does.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md */

typedef struct NxBuf {
    uint8_t *p;
    uint32_t len, capacity;
    uint32_t limit; /* bytes that it may hold; 0: any number */
    bool ran_code;  /* an accessor or a Proxy was asked */
} NxBuf;

static int nx_buf_reserve(JSContext *ctx, NxBuf *b, uint32_t more)
{
    uint64_t want = (uint64_t)b->len + more;
    uint32_t capacity = b->capacity ? b->capacity : 64;
    uint8_t *p;

    if (want <= b->capacity)
        return 0;
    if (want > (b->limit ? b->limit : INT32_MAX)) {
        nx_throw(ctx, JS_RANGE_ERROR, "value too large");
        return -1;
    }
    while (capacity < want)
        capacity *= 2;
    p = js_realloc(ctx, b->p, capacity);
    if (!p)
        return -1;
    b->p = p;
    b->capacity = capacity;
    return 0;
}

static void nx_buf_free(JSContext *ctx, NxBuf *b)
{
    js_free(ctx, b->p);
    b->p = NULL;
    b->len = b->capacity = 0;
}

static int nx_put(JSContext *ctx, NxBuf *b, const void *data, uint32_t len)
{
    if (nx_buf_reserve(ctx, b, len))
        return -1;
    memcpy(b->p + b->len, data, len);
    b->len += len;
    return 0;
}

/* A tag byte and the low `size` bytes of `value`, big-endian. */
static int nx_put_tagged(JSContext *ctx, NxBuf *b, uint8_t tag, uint64_t value, int size)
{
    uint8_t out[9];
    int i;

    out[0] = tag;
    for (i = 0; i < size; i++)
        out[1 + i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    return nx_put(ctx, b, out, 1 + size);
}

static int nx_put_nil(JSContext *ctx, NxBuf *b) { return nx_put_tagged(ctx, b, 0xc0, 0, 0); }

static int nx_put_int(JSContext *ctx, NxBuf *b, int64_t v)
{
    if (v >= 0) {
        if (v < 0x80)
            return nx_put_tagged(ctx, b, (uint8_t)v, 0, 0);
        if (v <= 0xff)
            return nx_put_tagged(ctx, b, 0xcc, v, 1);
        if (v <= 0xffff)
            return nx_put_tagged(ctx, b, 0xcd, v, 2);
        if (v <= 0xffffffffll)
            return nx_put_tagged(ctx, b, 0xce, v, 4);
        return nx_put_tagged(ctx, b, 0xcf, v, 8);
    }
    if (v >= -32)
        return nx_put_tagged(ctx, b, (uint8_t)v, 0, 0);
    if (v >= INT8_MIN)
        return nx_put_tagged(ctx, b, 0xd0, v, 1);
    if (v >= INT16_MIN)
        return nx_put_tagged(ctx, b, 0xd1, v, 2);
    if (v >= INT32_MIN)
        return nx_put_tagged(ctx, b, 0xd2, v, 4);
    return nx_put_tagged(ctx, b, 0xd3, v, 8);
}

#define NX_MAX_SAFE 9007199254740991.0

static int nx_put_double(JSContext *ctx, NxBuf *b, double d)
{
    JSFloat64Union u;
    if (d >= -NX_MAX_SAFE && d <= NX_MAX_SAFE && d == (double)(int64_t)d && !(d == 0 && signbit(d)))
        return nx_put_int(ctx, b, (int64_t)d);
    u.d = d;
    return nx_put_tagged(ctx, b, 0xcb, u.u64, 8);
}

/* Header of a str, bin, array or map; tags of the 8, 16 and 32 bit forms (0: there is no such form). */
static int nx_put_header(JSContext *ctx, NxBuf *b, uint32_t n, uint8_t fix, uint32_t fix_max, uint8_t t8, uint8_t t16, uint8_t t32)
{
    if (n <= fix_max && fix)
        return nx_put_tagged(ctx, b, (uint8_t)(fix | n), 0, 0);
    if (n <= 0xff && t8)
        return nx_put_tagged(ctx, b, t8, n, 1);
    if (n <= 0xffff)
        return nx_put_tagged(ctx, b, t16, n, 2);
    return nx_put_tagged(ctx, b, t32, n, 4);
}

static int nx_put_array_header(JSContext *ctx, NxBuf *b, uint32_t n) { return nx_put_header(ctx, b, n, 0x90, 15, 0, 0xdc, 0xdd); }
static int nx_put_map_header(JSContext *ctx, NxBuf *b, uint32_t n) { return nx_put_header(ctx, b, n, 0x80, 15, 0, 0xde, 0xdf); }

static int nx_put_str(JSContext *ctx, NxBuf *b, const char *s, uint32_t len)
{
    return nx_put_header(ctx, b, len, 0xa0, 31, 0xd9, 0xda, 0xdb) || nx_put(ctx, b, s, len) ? -1 : 0;
}

static int nx_put_bin(JSContext *ctx, NxBuf *b, const void *s, uint32_t len)
{
    return nx_put_header(ctx, b, len, 0, 0, 0xc4, 0xc5, 0xc6) || nx_put(ctx, b, s, len) ? -1 : 0;
}

/* QuickJS writes an unpaired surrogate as three bytes ED A0..BF xx, which is not UTF-8; U+FFFD has three bytes too. */
static void nx_mend_surrogates(uint8_t *s, uint32_t len)
{
    uint32_t i;
    for (i = 0; i + 2 < len; i++) {
        if (s[i] == 0xed && s[i + 1] >= 0xa0) {
            s[i] = 0xef, s[i + 1] = 0xbf, s[i + 2] = 0xbd;
            i += 2;
        }
    }
}

/* The characters of a string of ASCII that lies in one piece, which are its UTF-8 as they stand; else NULL. */
static const uint8_t *nx_ascii(JSValueConst v, uint32_t *len)
{
    JSString *p;
    const uint8_t *latin1;
    uint32_t i, n;
    uint8_t high = 0;

    if (JS_VALUE_GET_TAG(v) != JS_TAG_STRING)
        return NULL;
    p = JS_VALUE_GET_STRING(v);
    if (p->is_wide_char)
        return NULL;
    latin1 = str8(p);
    n = p->len;
    for (i = 0; i < n; i++)
        high |= latin1[i];
    *len = n;
    return high & 0x80 ? NULL : latin1;
}

static int nx_put_js_string(JSContext *ctx, NxBuf *b, JSValueConst v)
{
    const uint8_t *ascii;
    uint32_t n;
    const char *s;
    size_t len;
    uint32_t start;
    int ret;

    ascii = nx_ascii(v, &n);
    if (ascii)
        return nx_put_str(ctx, b, (const char *)ascii, n);
    s = JS_ToCStringLen(ctx, &len, v);
    if (!s)
        return -1;
    ret = nx_put_str(ctx, b, s, (uint32_t)len);
    if (!ret) {
        start = b->len - (uint32_t)len;
        nx_mend_surrogates(b->p + start, (uint32_t)len);
    }
    JS_FreeCString(ctx, s);
    return ret;
}

/* Whether v is this BigInt, which it takes. -1: exception. */
static int nx_is_bigint(JSContext *ctx, JSValueConst v, JSValue bigint)
{
    bool same;

    if (JS_IsException(bigint))
        return -1;
    same = JS_IsStrictEqual(ctx, bigint, v);
    JS_FreeValue(ctx, bigint);
    return same;
}

static int nx_put_bigint(JSContext *ctx, NxBuf *b, JSValueConst v)
{
    int64_t i;
    int same;

    if (JS_ToBigInt64(ctx, &i, v))
        return -1;
    same = nx_is_bigint(ctx, v, JS_NewBigInt64(ctx, i));
    if (same > 0)
        return i < 0 ? nx_put_tagged(ctx, b, 0xd3, (uint64_t)i, 8) : nx_put_tagged(ctx, b, 0xcf, (uint64_t)i, 8);
    if (same == 0)
        same = nx_is_bigint(ctx, v, JS_NewBigUint64(ctx, (uint64_t)i));
    if (same > 0)
        return nx_put_tagged(ctx, b, 0xcf, (uint64_t)i, 8);
    if (same == 0)
        nx_throw_serialization(ctx, "a BigInt outside of 64 bits cannot leave the sandbox");
    return -1;
}

/* The number in v; NaN when it holds none. */
static double nx_number(JSValueConst v)
{
    if (JS_VALUE_GET_TAG(v) == JS_TAG_INT)
        return JS_VALUE_GET_INT(v);
    return JS_TAG_IS_FLOAT64(JS_VALUE_GET_TAG(v)) ? JS_VALUE_GET_FLOAT64(v) : NAN;
}

static int nx_put_date(JSContext *ctx, NxBuf *b, double ms)
{
    uint8_t out[15] = { 0 };
    int64_t total, seconds;
    uint32_t nanoseconds;
    int i;

    if (isnan(ms))
        return nx_put_nil(ctx, b);
    total = (int64_t)ms;
    seconds = total / 1000 - (total % 1000 < 0);
    nanoseconds = (uint32_t)((total - seconds * 1000) * 1000000);
    if (seconds >= 0 && seconds >> 34 == 0) {
        uint64_t packed = (uint64_t)nanoseconds << 34 | (uint64_t)seconds;
        int size = packed >> 32 ? 8 : 4;
        out[0] = size == 8 ? 0xd7 : 0xd6;
        out[1] = 0xff;
        for (i = 0; i < size; i++)
            out[2 + i] = (uint8_t)(packed >> (8 * (size - 1 - i)));
        return nx_put(ctx, b, out, 2 + size);
    }
    out[0] = 0xc7, out[1] = 12, out[2] = 0xff;
    for (i = 0; i < 4; i++)
        out[3 + i] = (uint8_t)(nanoseconds >> (8 * (3 - i)));
    for (i = 0; i < 8; i++)
        out[7 + i] = (uint8_t)((uint64_t)seconds >> (8 * (7 - i)));
    return nx_put(ctx, b, out, 15);
}

/* ---- properties ---- */

/* What reading a property of p gives, where no code can run by that. False: only QuickJS can tell, and code may run. */
static bool nx_peek(JSObject *p, JSAtom name, JSValueConst *v)
{
    for (; p; p = p->shape->proto) {
        JSShapeProperty *found;
        JSProperty *pr;

        if (p->class_id == JS_CLASS_ARRAY) {
            if (p->fast_array && __JS_AtomIsTaggedInt(name)) {
                if (__JS_AtomToUInt32(name) >= p->u.array.count)
                    continue;
                *v = p->u.array.u.values[__JS_AtomToUInt32(name)];
                return true;
            }
        } else if (p->is_exotic) {
            return false;
        }
        found = find_own_property(&pr, p, name);
        if (!found)
            continue;
        if ((found->flags & JS_PROP_TMASK) != JS_PROP_NORMAL)
            return false;
        *v = pr->u.value;
        return true;
    }
    *v = JS_UNDEFINED;
    return true;
}

/* Reads a property, and notes whether that may run code. */
static JSValue nx_read(JSContext *ctx, NxBuf *b, JSValueConst obj, JSAtom name)
{
    JSValueConst v;

    if (nx_peek(JS_VALUE_GET_OBJ(obj), name, &v))
        return js_dup(v);
    b->ran_code = true;
    return JS_GetProperty(ctx, obj, name);
}

/* An own data property, whatever the prototypes are; JS_UNDEFINED: there is none. Not to be freed. */
static JSValueConst nx_own_value(JSValueConst obj, JSAtom name)
{
    JSShapeProperty *found;
    JSProperty *pr;

    if (!JS_IsObject(obj))
        return JS_UNDEFINED;
    found = find_own_property(&pr, JS_VALUE_GET_OBJ(obj), name);
    return found && (found->flags & JS_PROP_TMASK) == JS_PROP_NORMAL ? (JSValueConst)pr->u.value : JS_UNDEFINED;
}

/* ---- values ---- */

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

static int nx_encode_object(JSContext *ctx, NxBuf *b, JSValueConst v, int depth)
{
    JSPropertyEnum *names;
    uint32_t count, i, at, room, written = 0;
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
        failed = nx_put_atom(ctx, b, names[i].atom) || nx_encode(ctx, b, item, depth);
        JS_FreeValue(ctx, item);
        if (failed)
            goto done;
        written++;
    }
    nx_patch_map_header(b, at, room, written);
    ret = 0;
done:
    JS_FreePropertyEnum(ctx, names, count);
    return ret;
}

/* Map and Set: the entries are copied out first, since encoding one may run code that changes the collection. */
static int nx_encode_collection(JSContext *ctx, NxBuf *b, JSValueConst v, bool is_map, int depth)
{
    JSMapState *s = JS_VALUE_GET_OBJ(v)->u.map_state;
    uint32_t count = s->record_count, n = 0, i, at, room, written = 0;
    JSValue *entries = js_malloc(ctx, sizeof(JSValue) * 2 * (count + 1));
    struct list_head *el;
    int ret = -1;

    if (!entries)
        return -1;
    list_for_each(el, &s->records) {
        JSMapRecord *r = list_entry(el, JSMapRecord, link);
        if (r->empty || n == count)
            continue;
        entries[2 * n] = js_dup(r->key);
        entries[2 * n + 1] = is_map ? js_dup(r->value) : JS_UNDEFINED;
        n++;
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
        if (nx_put_js_string(ctx, b, key) || nx_encode(ctx, b, value, depth)) {
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
        JSValue field = nx_read(ctx, b, v, i ? JS_ATOM_message : JS_ATOM_name);
        JSValue text = JS_IsException(field) ? field : JS_ToString(ctx, field);
        int failed;
        if (JS_IsObject(field))
            b->ran_code = true;
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

static bool nx_is_view(int class_id)
{
    return class_id >= JS_CLASS_UINT8C_ARRAY && class_id <= JS_CLASS_DATAVIEW;
}

typedef enum { NX_WITHIN, NX_DETACHED, NX_OUTSIDE } NxBounds;

/* The bytes of an ArrayBuffer, or of a view of one, where they lie at this moment. A view without a length of its own goes as
 * far as its buffer does. */
static NxBounds nx_bytes_of(JSObject *p, uint8_t **data, uint32_t *len)
{
    bool is_view = nx_is_view(p->class_id);
    JSTypedArray *view = is_view ? p->u.typed_array : NULL;
    JSArrayBuffer *buffer = is_view ? view->buffer->u.array_buffer : p->u.array_buffer;
    uint32_t size = (uint32_t)buffer->byte_length;

    if (buffer->detached)
        return NX_DETACHED;
    *data = buffer->data;
    *len = size;
    if (!is_view)
        return NX_WITHIN;
    if (view->offset > size)
        return NX_OUTSIDE;
    *data = buffer->data + view->offset;
    *len = size - view->offset;
    if (view->track_rab) {
        if (p->class_id != JS_CLASS_DATAVIEW)
            *len &= ~((1u << typed_array_size_log2(p->class_id)) - 1);
    } else if (view->length > *len) {
        return NX_OUTSIDE;
    } else {
        *len = view->length;
    }
    return NX_WITHIN;
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
        nx_throw(ctx, JS_TYPE_ERROR, "ArrayBuffer is detached");
        return -1;
    default:
        nx_throw_serialization(ctx, "a view is out of the bounds of its buffer");
        return -1;
    }
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
    if (JS_IsFunction(ctx, v))
        return nx_put_nil(ctx, b);
    if (depth >= NX_MAX_DEPTH) {
        nx_throw_serialization(ctx, "a value is cyclic, or nested deeper than 64 levels");
        return -1;
    }
    if (js_check_stack_overflow(ctx->rt, 0)) {
        nx_throw(ctx, JS_RANGE_ERROR, "Maximum call stack size exceeded");
        return -1;
    }
    if (JS_VALUE_GET_OBJ(v)->class_id == JS_CLASS_PROXY)
        b->ran_code = true;
    ret = nx_encode_boxed(ctx, b, v, depth);
    if (ret <= 0)
        return ret;
    ret = js_is_array(ctx, v);
    if (ret < 0)
        return -1;
    return ret ? nx_encode_array(ctx, b, v, depth + 1) : nx_encode_object(ctx, b, v, depth + 1);
}
