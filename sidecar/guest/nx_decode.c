/* MessagePack to JavaScript values, by the table of protocol/SPEC.md section 5. Runs no code of the handler. */

typedef struct NxReader {
    const uint8_t *p, *end;
    bool has_duplicates; /* a map had a key twice: what was made of it has fewer */
    bool seals;          /* what is made is of $state, see nx_kept.c */
} NxReader;

typedef enum { NX_T_NIL, NX_T_BOOL, NX_T_INT, NX_T_UINT, NX_T_FLOAT, NX_T_STR, NX_T_BIN, NX_T_ARRAY, NX_T_MAP, NX_T_DATE, NX_T_BAD } NxType;

typedef struct NxToken {
    NxType type;
    uint32_t len; /* bytes of str and bin, entries of array and map */
    union {
        int64_t i;
        uint64_t u;
        double f; /* DATE: milliseconds */
    };
} NxToken;

static bool nx_take(NxReader *r, uint32_t n, uint64_t *out)
{
    uint64_t v = 0;
    uint32_t i;
    if ((size_t)(r->end - r->p) < n)
        return false;
    for (i = 0; i < n; i++)
        v = v << 8 | r->p[i];
    r->p += n;
    *out = v;
    return true;
}

static NxToken nx_timestamp(NxReader *r, uint32_t len)
{
    NxToken t = { NX_T_BAD, 0, { 0 } };
    uint64_t type, a, b;

    if (!nx_take(r, 1, &type) || (int8_t)type != -1)
        return t;
    if (len == 4 && nx_take(r, 4, &a)) {
        t.type = NX_T_DATE, t.f = (double)a * 1000;
    } else if (len == 8 && nx_take(r, 8, &a)) {
        t.type = NX_T_DATE, t.f = (double)(a & 0x3ffffffffull) * 1000 + (double)(a >> 34) / 1e6;
    } else if (len == 12 && nx_take(r, 4, &a) && nx_take(r, 8, &b)) {
        t.type = NX_T_DATE, t.f = (double)(int64_t)b * 1000 + (double)a / 1e6;
    }
    return t;
}

/* Reads one token; str and bin bytes stay in the reader. Lengths are held against the bytes that are left. */
static NxToken nx_next(NxReader *r)
{
    NxToken t = { NX_T_BAD, 0, { 0 } };
    uint64_t v = 0;
    uint8_t tag;

    if (r->p >= r->end)
        return t;
    tag = *r->p++;
    if (tag < 0x80) {
        t.type = NX_T_INT, t.i = tag;
    } else if (tag < 0x90) {
        t.type = NX_T_MAP, t.len = tag & 15;
    } else if (tag < 0xa0) {
        t.type = NX_T_ARRAY, t.len = tag & 15;
    } else if (tag < 0xc0) {
        t.type = NX_T_STR, t.len = tag & 31;
    } else if (tag >= 0xe0) {
        t.type = NX_T_INT, t.i = (int8_t)tag;
    } else {
        static const uint8_t sizes[32] = { 0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4 };
        JSFloat64Union u;
        if (!nx_take(r, sizes[tag - 0xc0], &v))
            return t;
        switch (tag) {
        case 0xc0: t.type = NX_T_NIL; break;
        case 0xc2: case 0xc3: t.type = NX_T_BOOL, t.i = tag & 1; break;
        case 0xc4: case 0xc5: case 0xc6: t.type = NX_T_BIN, t.len = (uint32_t)v; break;
        case 0xc7: return nx_timestamp(r, (uint32_t)v);
        case 0xca: {
            union { uint32_t i; float f; } w = { (uint32_t)v };
            t.type = NX_T_FLOAT, t.f = w.f;
            break;
        }
        case 0xcb: u.u64 = v, t.type = NX_T_FLOAT, t.f = u.d; break;
        case 0xcc: case 0xcd: case 0xce: case 0xcf: t.type = NX_T_UINT, t.u = v; break;
        case 0xd0: t.type = NX_T_INT, t.i = (int8_t)v; break;
        case 0xd1: t.type = NX_T_INT, t.i = (int16_t)v; break;
        case 0xd2: t.type = NX_T_INT, t.i = (int32_t)v; break;
        case 0xd3: t.type = NX_T_INT, t.i = (int64_t)v; break;
        case 0xd6: return nx_timestamp(r, 4);
        case 0xd7: return nx_timestamp(r, 8);
        case 0xd9: case 0xda: case 0xdb: t.type = NX_T_STR, t.len = (uint32_t)v; break;
        case 0xdc: case 0xdd: t.type = NX_T_ARRAY, t.len = (uint32_t)v; break;
        case 0xde: case 0xdf: t.type = NX_T_MAP, t.len = (uint32_t)v; break;
        }
    }
    if ((t.type == NX_T_UINT) && t.u <= INT64_MAX)
        t.type = NX_T_INT;
    if (t.type >= NX_T_STR && t.type <= NX_T_MAP && t.len > (size_t)(r->end - r->p))
        t.type = NX_T_BAD;
    return t;
}

static JSValue nx_decode(JSContext *ctx, NxReader *r, int depth);

static JSValue nx_throw_bad_payload(JSContext *ctx)
{
    return nx_throw_serialization(ctx, "malformed MessagePack");
}

static bool nx_is_safe(int64_t i)
{
    return i >= -(int64_t)NX_MAX_SAFE && i <= (int64_t)NX_MAX_SAFE;
}

static JSAtom nx_decode_key(JSContext *ctx, NxReader *r)
{
    NxToken t = nx_next(r);
    JSValue v;
    JSAtom atom;

    switch (t.type) {
    case NX_T_STR:
        atom = JS_NewAtomLen(ctx, (const char *)r->p, t.len);
        r->p += t.len;
        return atom;
    /* as a Number a large one would be rounded, and become the key of another */
    case NX_T_INT: v = nx_is_safe(t.i) ? JS_NewInt64(ctx, t.i) : JS_NewBigInt64(ctx, t.i); break;
    case NX_T_UINT: v = JS_NewBigUint64(ctx, t.u); break;
    case NX_T_FLOAT: v = JS_NewFloat64(ctx, t.f); break;
    case NX_T_BOOL: v = JS_NewBool(ctx, t.i); break;
    default: nx_throw_bad_payload(ctx); return JS_ATOM_NULL;
    }
    atom = JS_ValueToAtom(ctx, v);
    JS_FreeValue(ctx, v);
    return atom;
}

/* How many properties an ordinary object has. */
static uint32_t nx_property_count(const JSObject *p)
{
    return (uint32_t)(p->shape->prop_count - p->shape->deleted_prop_count);
}

static JSValue nx_decode_map(JSContext *ctx, NxReader *r, uint32_t len, int depth)
{
    JSValue obj = JS_NewObject(ctx);
    uint32_t i;

    if (JS_IsException(obj))
        return obj;
    for (i = 0; i < len; i++) {
        JSAtom key = nx_decode_key(ctx, r);
        JSValue v;
        int ret;
        if (key == JS_ATOM_NULL)
            goto fail;
        v = nx_decode(ctx, r, depth);
        if (JS_IsException(v)) {
            JS_FreeAtom(ctx, key);
            goto fail;
        }
        /* defined, not set: "__proto__" is a key like any other here */
        ret = JS_DefinePropertyValue(ctx, obj, key, v, JS_PROP_C_W_E);
        JS_FreeAtom(ctx, key);
        if (ret < 0)
            goto fail;
    }
    if (nx_property_count(JS_VALUE_GET_OBJ(obj)) != len)
        r->has_duplicates = true;
    return obj;
fail:
    JS_FreeValue(ctx, obj);
    return JS_EXCEPTION;
}

static JSValue nx_decode_array(JSContext *ctx, NxReader *r, uint32_t len, int depth)
{
    JSValue arr = JS_NewArray(ctx);
    JSObject *p;
    uint32_t i;

    if (JS_IsException(arr) || len == 0)
        return arr;
    p = JS_VALUE_GET_OBJ(arr);
    if (expand_fast_array(ctx, p, len))
        goto fail;
    for (i = 0; i < len; i++) {
        JSValue v = nx_decode(ctx, r, depth);
        if (JS_IsException(v))
            goto fail;
        p->u.array.u.values[i] = v;
        p->u.array.count = i + 1;
    }
    p->prop[0].u.value = js_int32((int32_t)len);
    return arr;
fail:
    JS_FreeValue(ctx, arr);
    return JS_EXCEPTION;
}

static JSValue nx_decode(JSContext *ctx, NxReader *r, int depth)
{
    NxToken t = nx_next(r);
    JSValue v;

    switch (t.type) {
    case NX_T_NIL: return JS_NULL;
    case NX_T_BOOL: return JS_NewBool(ctx, t.i);
    case NX_T_INT:
        return nx_is_safe(t.i) ? JS_NewInt64(ctx, t.i) : JS_NewBigInt64(ctx, t.i);
    case NX_T_UINT: return JS_NewBigUint64(ctx, t.u);
    case NX_T_FLOAT: return JS_NewFloat64(ctx, t.f);
    case NX_T_STR:
        v = JS_NewStringLen(ctx, (const char *)r->p, t.len);
        r->p += t.len;
        return v;
    case NX_T_BIN:
        v = JS_NewUint8ArrayCopy(ctx, r->p, t.len);
        r->p += t.len;
        if (r->seals && JS_IsObject(v))
            JS_VALUE_GET_OBJ(v)->u.typed_array->buffer->nx_is_of_state = true;
        break;
    case NX_T_DATE:
        v = JS_NewDate(ctx, t.f);
        break;
    case NX_T_ARRAY:
    case NX_T_MAP:
        if (depth >= NX_MAX_DEPTH)
            return nx_throw_serialization(ctx, "a value is nested deeper than 64 levels");
        v = t.type == NX_T_ARRAY ? nx_decode_array(ctx, r, t.len, depth + 1) : nx_decode_map(ctx, r, t.len, depth + 1);
        break;
    default: return nx_throw_bad_payload(ctx);
    }
    if (r->seals && JS_IsObject(v))
        JS_VALUE_GET_OBJ(v)->nx_is_of_state = true;
    return v;
}

/* One value, and nothing behind it. */
static JSValue nx_decode_whole(JSContext *ctx, NxReader *r)
{
    JSValue v = nx_decode(ctx, r, 0);
    if (!JS_IsException(v) && r->p != r->end) {
        JS_FreeValue(ctx, v);
        return nx_throw_bad_payload(ctx);
    }
    return v;
}

static JSValue nx_decode_payload(JSContext *ctx, const uint8_t *p, uint32_t len)
{
    NxReader r = { .p = p, .end = p + len };
    return nx_decode_whole(ctx, &r);
}
