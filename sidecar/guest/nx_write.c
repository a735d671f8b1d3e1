/* MessagePack, written: a buffer that grows, and the forms of numbers, strings, bytes and headers, by the table of
 * protocol/SPEC.md section 5. Runs no code of the handler.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md */

typedef struct NxBuf {
    uint8_t *p;
    uint32_t len, capacity;
    uint32_t limit; /* bytes that it may hold; 0: any number */
    bool ran_code;  /* an accessor or a Proxy was asked */
    bool met_view;  /* something in it may only be read where it is, see nx_views.c */
    bool awaits;    /* it is the result: promises are awaited, see nx_result.c */
    bool seals;     /* it is of $state: the objects in it take nothing that would be lost, see nx_kept.c */
    bool looks_only; /* no code is run: nil stands for what only code can tell */
    bool mended;     /* half of a surrogate pair became U+FFFD */
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
static bool nx_mend_surrogates(uint8_t *s, uint32_t len)
{
    bool mended = false;
    uint32_t i;
    for (i = 0; i + 2 < len; i++) {
        if (s[i] == 0xed && s[i + 1] >= 0xa0) {
            s[i] = 0xef, s[i + 1] = 0xbf, s[i + 2] = 0xbd;
            i += 2;
            mended = true;
        }
    }
    return mended;
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
        b->mended |= nx_mend_surrogates(b->p + start, (uint32_t)len);
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
