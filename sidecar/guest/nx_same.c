/* Whether a value still is what an encoding says: how writes inside a value of $state are found. */

static bool nx_same_string(JSContext *ctx, JSValueConst v, const uint8_t *p, uint32_t len)
{
    const uint8_t *ascii;
    uint32_t ascii_len;
    const char *s;
    size_t n;
    bool same;

    if (!JS_IsString(v))
        return false;
    ascii = nx_ascii(v, &ascii_len);
    if (ascii)
        return ascii_len == len && !memcmp(ascii, p, len);
    s = JS_ToCStringLen(ctx, &n, v);
    if (!s) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        return false;
    }
    same = n == len && !memcmp(s, p, n);
    JS_FreeCString(ctx, s);
    return same;
}

static bool nx_same_number(JSContext *ctx, JSValueConst v, double d)
{
    double x = nx_number(v);
    if (!JS_IsNumber(v))
        return false;
    return x == d ? signbit(x) == signbit(d) : isnan(x) && isnan(d);
}

/* Whether v still is what the encoding says: no code of the handler runs. False in doubt: then it is encoded anew. */
static bool nx_same(JSContext *ctx, NxReader *r, JSValueConst v, int depth)
{
    NxToken t = nx_next(r);
    JSObject *p = JS_IsObject(v) ? JS_VALUE_GET_OBJ(v) : NULL;
    uint32_t i;

    switch (t.type) {
    case NX_T_NIL: return JS_IsNull(v) || JS_IsUndefined(v);
    case NX_T_BOOL: return JS_IsBool(v) && JS_VALUE_GET_BOOL(v) == t.i;
    case NX_T_INT:
        if (t.i >= -(int64_t)NX_MAX_SAFE && t.i <= (int64_t)NX_MAX_SAFE)
            return nx_same_number(ctx, v, (double)t.i);
        return false;
    case NX_T_FLOAT: return nx_same_number(ctx, v, t.f);
    case NX_T_STR:
        if (!nx_same_string(ctx, v, r->p, t.len))
            return false;
        r->p += t.len;
        return true;
    case NX_T_BIN: {
        size_t offset, length, size;
        const uint8_t *data;
        JSValue buffer;
        bool same;
        if (!p || p->class_id != JS_CLASS_UINT8_ARRAY)
            return false;
        buffer = JS_GetTypedArrayBuffer(ctx, v, &offset, &length, NULL);
        if (JS_IsException(buffer)) {
            JS_FreeValue(ctx, JS_GetException(ctx));
            return false;
        }
        data = JS_GetArrayBuffer(ctx, &size, buffer);
        if (JS_HasException(ctx))
            JS_FreeValue(ctx, JS_GetException(ctx));
        same = length == t.len && (t.len == 0 || (data && offset <= size && length <= size - offset && !memcmp(data + offset, r->p, t.len)));
        JS_FreeValue(ctx, buffer);
        r->p += t.len;
        return same;
    }
    case NX_T_DATE:
        return p && p->class_id == JS_CLASS_DATE && nx_same_number(ctx, p->u.object_data, time_clip(t.f));
    case NX_T_ARRAY:
        if (depth >= NX_MAX_DEPTH || !p || p->class_id != JS_CLASS_ARRAY || !p->fast_array || p->u.array.count != t.len ||
            !nx_same_number(ctx, p->prop[0].u.value, t.len))
            return false;
        for (i = 0; i < t.len; i++)
            if (!nx_same(ctx, r, p->u.array.u.values[i], depth + 1))
                return false;
        return true;
    case NX_T_MAP: {
        uint32_t own = 0;
        JSShapeProperty *prs;
        if (depth >= NX_MAX_DEPTH || !p || p->class_id != JS_CLASS_OBJECT)
            return false;
        for (i = 0, prs = get_shape_prop(p->shape); i < p->shape->prop_count; i++, prs++) {
            if (prs->atom == JS_ATOM_NULL)
                continue;
            if ((prs->flags & (JS_PROP_TMASK | JS_PROP_ENUMERABLE)) != JS_PROP_ENUMERABLE)
                return false;
            own++;
        }
        if (own != t.len)
            return false;
        for (i = 0; i < t.len; i++) {
            JSAtom key = nx_decode_key(ctx, r);
            JSProperty *pr;
            JSShapeProperty *found;
            if (key == JS_ATOM_NULL) {
                JS_FreeValue(ctx, JS_GetException(ctx));
                return false;
            }
            found = find_own_property(&pr, p, key);
            JS_FreeAtom(ctx, key);
            if (!found || !nx_same(ctx, r, pr->u.value, depth + 1))
                return false;
        }
        return true;
    }
    default: return false;
    }
}
