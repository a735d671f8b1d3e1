/* Whether a value still is what an encoding says: how writes inside a value of $state are found.
 *
 * The question is always whether v is what decoding these bytes gives, whichever way they write it: a state that was only read
 * is never found changed. No code of the handler runs. */

/* 1: it is, 0: it is not (or it holds what no decoding gives, a Map say: then it is encoded anew), -1: exception. */
static int nx_same(JSContext *ctx, NxReader *r, JSValueConst v, int depth);

static int nx_same_string(JSContext *ctx, JSValueConst v, const uint8_t *p, uint32_t len)
{
    const uint8_t *ascii;
    uint32_t ascii_len, i;
    uint8_t high = 0;
    JSValue decoded;
    bool same;

    if (!JS_IsString(v))
        return 0;
    ascii = nx_ascii(v, &ascii_len);
    if (ascii)
        return ascii_len == len && !memcmp(ascii, p, len);
    if (JS_VALUE_GET_TAG(v) == JS_TAG_STRING) {
        for (i = 0; i < len; i++)
            high |= p[i];
        if (!(high & 0x80))
            return 0;
    }
    decoded = JS_NewStringLen(ctx, (const char *)p, len);
    if (JS_IsException(decoded))
        return -1;
    same = JS_IsStrictEqual(ctx, decoded, v);
    JS_FreeValue(ctx, decoded);
    return same;
}

static bool nx_same_number(JSValueConst v, double d)
{
    double x = nx_number(v);
    if (!JS_IsNumber(v))
        return false;
    return x == d ? signbit(x) == signbit(d) : isnan(x) && isnan(d);
}

static int nx_same_array(JSContext *ctx, NxReader *r, JSObject *p, uint32_t len, int depth)
{
    uint32_t i;

    if (depth >= NX_MAX_DEPTH || !p || p->class_id != JS_CLASS_ARRAY || !p->fast_array || p->u.array.count != len ||
        !nx_same_number(p->prop[0].u.value, len))
        return 0;
    for (i = 0; i < len; i++) {
        int same = nx_same(ctx, r, p->u.array.u.values[i], depth + 1);
        if (same <= 0)
            return same;
    }
    return 1;
}

static int nx_same_map(JSContext *ctx, NxReader *r, JSObject *p, uint32_t len, int depth)
{
    ptrdiff_t at, last = -1;
    uint32_t i, index;

    if (depth >= NX_MAX_DEPTH || !p || p->class_id != JS_CLASS_OBJECT || nx_property_count(p) != len)
        return 0;
    for (i = 0; i < len; i++) {
        JSAtom key = nx_decode_key(ctx, r);
        JSShapeProperty *found;
        JSProperty *pr;
        int same;

        if (key == JS_ATOM_NULL)
            return -1;
        found = find_own_property(&pr, p, key);
        at = found ? found - get_shape_prop(p->shape) : -1;
        /* names have the order in which they came, numbers their own */
        if (unlikely(at <= last) && found && JS_AtomIsArrayIndex(ctx, &index, key))
            at = last;
        else if (at <= last)
            found = NULL;
        JS_FreeAtom(ctx, key);
        if (!found || (found->flags & (JS_PROP_TMASK | JS_PROP_ENUMERABLE)) != JS_PROP_ENUMERABLE)
            return 0;
        last = at;
        same = nx_same(ctx, r, pr->u.value, depth + 1);
        if (same <= 0)
            return same;
    }
    return 1;
}

static int nx_same(JSContext *ctx, NxReader *r, JSValueConst v, int depth)
{
    NxToken t = nx_next(r);
    JSObject *p;
    int same;

    if (nx_is_read_only_view(v))
        v = JS_VALUE_GET_OBJ(v)->u.proxy_data->target;
    p = JS_IsObject(v) ? JS_VALUE_GET_OBJ(v) : NULL;

    switch (t.type) {
    case NX_T_NIL: return JS_IsNull(v) || JS_IsUndefined(v);
    case NX_T_BOOL: return JS_IsBool(v) && JS_VALUE_GET_BOOL(v) == t.i;
    case NX_T_INT:
        if (JS_IsBigInt(v))
            return nx_is_bigint(ctx, v, JS_NewBigInt64(ctx, t.i));
        return nx_is_safe(t.i) && nx_same_number(v, (double)t.i);
    case NX_T_UINT: return JS_IsBigInt(v) ? nx_is_bigint(ctx, v, JS_NewBigUint64(ctx, t.u)) : 0;
    case NX_T_FLOAT: return nx_same_number(v, t.f);
    case NX_T_STR:
        same = nx_same_string(ctx, v, r->p, t.len);
        r->p += t.len;
        return same;
    case NX_T_BIN: {
        uint8_t *data;
        uint32_t len;
        same = p && p->class_id == JS_CLASS_UINT8_ARRAY && nx_bytes_of(p, &data, &len) == NX_WITHIN && len == t.len &&
               (len == 0 || !memcmp(data, r->p, len));
        r->p += t.len;
        return same;
    }
    case NX_T_DATE:
        return p && p->class_id == JS_CLASS_DATE && nx_same_number(p->u.object_data, time_clip(t.f));
    case NX_T_ARRAY: return nx_same_array(ctx, r, p, t.len, depth);
    case NX_T_MAP: return nx_same_map(ctx, r, p, t.len, depth);
    default: return 0;
    }
}
