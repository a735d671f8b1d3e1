/* What can be seen of a value without running any code of the handler: characters, numbers, bytes, data properties. */

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

/* The number in v; NaN when it holds none. */
static double nx_number(JSValueConst v)
{
    if (JS_VALUE_GET_TAG(v) == JS_TAG_INT)
        return JS_VALUE_GET_INT(v);
    return JS_TAG_IS_FLOAT64(JS_VALUE_GET_TAG(v)) ? JS_VALUE_GET_FLOAT64(v) : NAN;
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

/* The same where nx_peek cannot tell, of what is no Proxy and no object of ours: also of exotic objects, and of what QuickJS makes
 * when it is asked for. 1: *v is it (to be freed), 0: code may run, -1: exception. */
static int nx_find_data(JSContext *ctx, JSObject *p, JSAtom name, JSValue *v)
{
    JSPropertyDescriptor found;
    int is_there;

    *v = JS_UNDEFINED;
    for (; p; p = p->shape->proto) {
        if (p->class_id == JS_CLASS_PROXY || p->class_id >= JS_CLASS_INIT_COUNT)
            return 0;
        is_there = JS_GetOwnPropertyInternal(ctx, &found, p, name);
        if (is_there < 0)
            return -1;
        if (!is_there)
            continue;
        if (!(found.flags & JS_PROP_GETSET)) {
            *v = found.value;
            return 1;
        }
        js_free_desc(ctx, &found);
        return 0;
    }
    return 1;
}

/* Whether it is a view of an object under a key that may only be read, see nx_views.c. */
static bool nx_is_read_only_view(JSValueConst v)
{
    JSProxyData *proxy;

    if (!JS_IsObject(v) || likely(JS_VALUE_GET_OBJ(v)->class_id != JS_CLASS_PROXY))
        return false;
    proxy = JS_VALUE_GET_OBJ(v)->u.proxy_data;
    return JS_IsObject(proxy->handler) && JS_VALUE_GET_OBJ(proxy->handler)->shape->proto == JS_VALUE_GET_OBJ(nx.read_only_handler);
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

/* ---- bytes ---- */

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

static bool nx_is_leaf(JSValueConst v)
{
    return JS_IsObject(v) && (JS_VALUE_GET_OBJ(v)->class_id == JS_CLASS_DATE || JS_VALUE_GET_OBJ(v)->class_id == JS_CLASS_UINT8_ARRAY);
}

/* Whether it is such a view, or a Date or bytes under such a key. */
static bool nx_may_only_be_read(JSContext *ctx, JSValueConst v)
{
    JSValue handler;
    bool is_noted;

    if (nx_is_read_only_view(v))
        return true;
    if (likely(!nx.has_read_only_leaves) || !nx_is_leaf(v) || JS_VALUE_GET_OBJ(v)->extensible)
        return false;
    handler = js_map_get(ctx, nx.read_only_views, 1, &v, MAGIC_WEAK);
    is_noted = JS_IsObject(handler);
    JS_FreeValue(ctx, handler);
    return is_noted;
}
