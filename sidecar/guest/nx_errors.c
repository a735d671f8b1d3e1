/* How an uncaught error is described to the host.
 *
 * A map {name, message, stack, code, capability, extension, method, properties, value, cause, errors}, those that it has, and
 * {unencoded: true} of one that the encoder has thrown, {refused: true} of one that tells what the host has said; `cause` and the items
 * of `errors` are such maps again. It is written into memory of its own, so that a handler that has used up its memory gets
 * one too, and every entry is written whole or not at all, so that what is cut short is still well formed. Reading an error
 * runs the handler's code (getters, Proxy traps): what fails is left out, and after an interrupt no more is asked. */

typedef struct NxReport {
    JSContext *ctx;
    NxBuf b;
    uint32_t inner_left; /* errors that may still be described inside of the outermost one */
    void *path[NX_MAX_ERROR_DEPTH + 1]; /* the objects around the one that is described: a cycle ends there */
    bool stopped;
} NxReport;

static uint8_t nx_report_bytes[NX_REPORT_BYTES];

static void nx_report_failed(NxReport *r)
{
    JSValue err = JS_GetException(r->ctx);
    if (nx_ended || JS_IsUncatchableError(err))
        r->stopped = true;
    JS_FreeValue(r->ctx, err);
}

/* What can be seen of a property when no function runs any more: data, and the stack of an Error, which is an accessor. */
static JSValue nx_report_see(JSValueConst err, JSAtom field)
{
    JSObject *p = JS_VALUE_GET_OBJ(err);
    JSValueConst v;

    if (nx_peek(p, field, &v))
        return js_dup(v);
    return field == JS_ATOM_stack && JS_IsError(err) ? js_dup(p->u.object_data) : JS_UNDEFINED;
}

/* A property of an error; JS_UNDEFINED when it cannot be read. */
static JSValue nx_report_get(NxReport *r, JSValueConst err, const char *field)
{
    JSAtom name = JS_NewAtom(r->ctx, field);
    JSValue v = JS_EXCEPTION;

    if (name != JS_ATOM_NULL)
        v = nx_ended ? nx_report_see(err, name) : JS_GetProperty(r->ctx, err, name);
    JS_FreeAtom(r->ctx, name);
    if (JS_IsException(v)) {
        nx_report_failed(r);
        return JS_UNDEFINED;
    }
    return v;
}

/* v as a string, JS_UNDEFINED when it has none. Takes v. */
static JSValue nx_report_text_of(NxReport *r, JSValue v)
{
    JSValue s;
    if (JS_IsUndefined(v) || JS_IsString(v))
        return v;
    s = JS_ToString(r->ctx, v);
    JS_FreeValue(r->ctx, v);
    if (JS_IsException(s)) {
        nx_report_failed(r);
        return JS_UNDEFINED;
    }
    return s;
}

/* Writes the first bytes of a string. Allocates nothing: the string may be a rope that would not fit into memory. */
static bool nx_report_put_text(NxReport *r, const char *key, JSValueConst text, uint32_t max)
{
    NxBuf *b = &r->b;
    JSStringRopeIter pieces;
    JSString *piece;
    uint32_t start = b->len, at, left, high = 0;

    if (!JS_IsString(text))
        return false;
    if (nx_put_str(r->ctx, b, key, (uint32_t)strlen(key)) || nx_put_tagged(r->ctx, b, 0xda, 0, 2)) {
        nx_report_failed(r);
        b->len = start;
        return false;
    }
    at = b->len;
    left = b->limit - at < max ? b->limit - at : max;
    string_rope_iter_init(&pieces, text);
    while ((piece = string_rope_iter_next(&pieces)) != NULL) {
        uint32_t i;
        for (i = 0; i < piece->len; i++) {
            uint32_t c = piece->is_wide_char ? str16(piece)[i] : str8(piece)[i];
            uint8_t utf8[2][4];
            uint32_t sizes[2], n = 0, k;
            if (high && is_lo_surrogate(c)) {
                sizes[n++] = (uint32_t)utf8_encode(utf8[0], from_surrogate(high, c));
            } else {
                if (high)
                    sizes[n++] = (uint32_t)utf8_encode(utf8[0], 0xfffd);
                if (!is_hi_surrogate(c)) {
                    sizes[n] = (uint32_t)utf8_encode(utf8[n], is_lo_surrogate(c) ? 0xfffd : c);
                    n++;
                }
            }
            high = is_hi_surrogate(c) ? c : 0;
            for (k = 0; k < n; k++) {
                if (left < sizes[k])
                    goto full;
                memcpy(b->p + b->len, utf8[k], sizes[k]);
                b->len += sizes[k];
                left -= sizes[k];
            }
        }
    }
    if (high && left >= 3) {
        memcpy(b->p + b->len, "\xef\xbf\xbd", 3);
        b->len += 3;
    }
full:
    left = b->len - at;
    b->p[at - 2] = (uint8_t)(left >> 8);
    b->p[at - 1] = (uint8_t)left;
    return true;
}

static bool nx_report_field(NxReport *r, JSValueConst err, const char *field, uint32_t max)
{
    JSValue v = nx_report_get(r, err, field);
    JSValue s = JS_IsNull(v) ? JS_UNDEFINED : nx_report_text_of(r, v);
    bool put = nx_report_put_text(r, field, s, max);
    JS_FreeValue(r->ctx, s);
    return put;
}

/* What is true of the error itself, whatever it says. */
static bool nx_report_put_mark(NxReport *r, const char *key)
{
    uint32_t start = r->b.len;

    if (!nx_put_str(r->ctx, &r->b, key, (uint32_t)strlen(key)) && !nx_put_tagged(r->ctx, &r->b, 0xc3, 0, 0))
        return true;
    nx_report_failed(r);
    r->b.len = start;
    return false;
}

/* Begins an entry that holds a payload of at most max bytes. False: there is no room. */
static bool nx_report_begin_bin(NxReport *r, const char *key, uint32_t max, uint32_t *start, uint32_t *limit)
{
    NxBuf *b = &r->b;

    *start = b->len;
    *limit = b->limit;
    if (nx_put_str(r->ctx, b, key, (uint32_t)strlen(key)) || nx_put_tagged(r->ctx, b, 0xc5, 0, 2)) {
        nx_report_failed(r);
        b->len = *start;
        return false;
    }
    if (max < b->limit - b->len)
        b->capacity = b->limit = b->len + max;
    return true;
}

static void nx_report_end_bin(NxReport *r, uint32_t at, uint32_t limit)
{
    uint32_t len = r->b.len - at;
    r->b.p[at - 2] = (uint8_t)(len >> 8);
    r->b.p[at - 1] = (uint8_t)len;
    r->b.capacity = r->b.limit = limit;
}

/* What an error that is no object holds, as a payload. */
static bool nx_report_put_value(NxReport *r, JSValueConst v)
{
    uint32_t start, at, limit;

    if (nx_is_dropped(r->ctx, v) || !nx_report_begin_bin(r, "value", NX_MAX_ERROR_PAYLOAD, &start, &limit))
        return false;
    at = r->b.len;
    if (nx_encode(r->ctx, &r->b, v, 0)) {
        nx_report_failed(r);
        r->b.len = start;
        r->b.capacity = r->b.limit = limit;
        return false;
    }
    nx_report_end_bin(r, at, limit);
    return true;
}

/* The names of an object's own enumerable properties, the first ones. An ordinary object's are read where they stand, without
 * a list of all of them. */
static uint32_t nx_report_names(NxReport *r, JSValueConst err, JSAtom *names)
{
    JSContext *ctx = r->ctx;
    JSObject *p = JS_VALUE_GET_OBJ(err);
    uint32_t n = 0, i, count;

    if (p->class_id == JS_CLASS_PROXY) {
        JSPropertyEnum *all;
        if (JS_GetOwnPropertyNames(ctx, &all, &count, err, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY)) {
            nx_report_failed(r);
            return 0;
        }
        for (; n < count && n < NX_MAX_ERROR_PROPERTIES; n++)
            names[n] = JS_DupAtom(ctx, all[n].atom);
        JS_FreePropertyEnum(ctx, all, count);
        return n;
    }
    count = (uint32_t)p->shape->prop_count;
    for (i = 0; i < count && n < NX_MAX_ERROR_PROPERTIES; i++) {
        const JSShapeProperty *property = &get_shape_prop(p->shape)[i];
        if (property->atom != JS_ATOM_NULL && (property->flags & JS_PROP_ENUMERABLE) &&
            JS_AtomGetKind(ctx, property->atom) == JS_ATOM_KIND_STRING)
            names[n++] = JS_DupAtom(ctx, property->atom);
    }
    return n;
}

static bool nx_is_reported_elsewhere(JSContext *ctx, JSAtom name)
{
    static const char *const names[] = { "name", "message", "stack", "cause", "errors" };
    char buf[ATOM_GET_STR_BUF_SIZE];
    const char *text = JS_AtomGetStr(ctx, buf, sizeof(buf), name);
    size_t i;

    for (i = 0; i < countof(names); i++)
        if (!strcmp(text, names[i]))
            return true;
    return false;
}

/* An error's own enumerable properties as the payload of a map. */
static bool nx_report_put_properties(NxReport *r, JSValueConst err)
{
    JSContext *ctx = r->ctx;
    JSAtom names[NX_MAX_ERROR_PROPERTIES];
    uint32_t count = nx_report_names(r, err, names), written = 0, start, at, limit, i;

    if (!count || !nx_report_begin_bin(r, "properties", NX_MAX_ERROR_PAYLOAD, &start, &limit))
        goto done;
    at = r->b.len;
    if (nx_put_tagged(ctx, &r->b, 0xde, 0, 2))
        nx_report_failed(r);
    else
        for (i = 0; i < count && !r->stopped; i++) {
            uint32_t before = r->b.len;
            JSValue v;
            if (nx_is_reported_elsewhere(ctx, names[i]))
                continue;
            v = JS_GetProperty(ctx, err, names[i]);
            if (!JS_IsException(v) && nx_is_dropped(ctx, v)) {
                JS_FreeValue(ctx, v);
                continue;
            }
            if (JS_IsException(v) || nx_put_atom(ctx, &r->b, names[i]) || nx_encode(ctx, &r->b, v, 1)) {
                nx_report_failed(r);
                r->b.len = before;
            } else {
                written++;
            }
            JS_FreeValue(ctx, v);
        }
    if (written) {
        r->b.p[at + 1] = (uint8_t)(written >> 8);
        r->b.p[at + 2] = (uint8_t)written;
        nx_report_end_bin(r, at, limit);
    } else {
        r->b.len = start;
        r->b.capacity = r->b.limit = limit;
    }
done:
    for (i = 0; i < count; i++)
        JS_FreeAtom(ctx, names[i]);
    return written != 0;
}

static bool nx_report_put_error(NxReport *r, JSValueConst err, uint32_t depth);

/* Whether v may be described inside of what stands in the path: it is not part of a cycle, and not too much. */
static bool nx_report_may_enter(NxReport *r, JSValueConst v, uint32_t depth)
{
    uint32_t i;

    if (r->stopped || depth > NX_MAX_ERROR_DEPTH || r->inner_left == 0)
        return false;
    for (i = 0; i < depth; i++)
        if (JS_IsObject(v) && r->path[i] == JS_VALUE_GET_PTR(v))
            return false;
    r->inner_left--;
    return true;
}

static bool nx_report_put_cause(NxReport *r, JSValueConst err, uint32_t depth)
{
    uint32_t start = r->b.len;
    JSValue cause = nx_report_get(r, err, "cause");
    bool put = !JS_IsUndefined(cause) && nx_report_may_enter(r, cause, depth);

    if (put) {
        put = !nx_put_str(r->ctx, &r->b, "cause", 5);
        if (!put)
            nx_report_failed(r);
        put = put && nx_report_put_error(r, cause, depth);
        if (!put)
            r->b.len = start;
    }
    JS_FreeValue(r->ctx, cause);
    return put;
}

/* A SuppressedError is about two errors: the one that came last, and the one that it came upon. */
static JSValue nx_report_suppressed(NxReport *r, JSValueConst err)
{
    JSContext *ctx = r->ctx;
    JSProperty *pr;
    JSValue list;

    if (!JS_IsError(err) || !find_own_property(&pr, JS_VALUE_GET_OBJ(err), JS_ATOM_suppressed))
        return JS_UNDEFINED;
    list = JS_NewArray(ctx);
    if (JS_IsException(list)) {
        nx_report_failed(r);
        return JS_UNDEFINED;
    }
    if (JS_DefinePropertyValueUint32(ctx, list, 0, nx_report_get(r, err, "error"), JS_PROP_C_W_E) < 0 ||
        JS_DefinePropertyValueUint32(ctx, list, 1, nx_report_get(r, err, "suppressed"), JS_PROP_C_W_E) < 0)
        nx_report_failed(r);
    return list;
}

/* AggregateError.errors, the first ones. */
static bool nx_report_put_errors(NxReport *r, JSValueConst err, uint32_t depth)
{
    JSContext *ctx = r->ctx;
    uint32_t start = r->b.len, at, written = 0;
    int64_t len = 0, i;
    int is_array;
    JSValue list = nx_report_get(r, err, "errors");

    if (JS_IsUndefined(list))
        list = nx_report_suppressed(r, err);
    if (!JS_IsObject(list))
        goto done;
    is_array = js_is_array(ctx, list);
    if (is_array == 0)
        goto done;
    if (is_array < 0 || js_get_length64(ctx, &len, list)) {
        nx_report_failed(r);
        goto done;
    }
    if (nx_put_str(ctx, &r->b, "errors", 6) || nx_put_tagged(ctx, &r->b, 0xdc, 0, 2)) {
        nx_report_failed(r);
        r->b.len = start;
        goto done;
    }
    at = r->b.len;
    for (i = 0; i < len && i < NX_MAX_AGGREGATE_ERRORS && !r->stopped; i++) {
        JSValue item = JS_GetPropertyInt64(ctx, list, i);
        if (JS_IsException(item))
            nx_report_failed(r);
        else if (nx_report_may_enter(r, item, depth) && nx_report_put_error(r, item, depth))
            written++;
        JS_FreeValue(ctx, item);
    }
    r->b.p[at - 1] = (uint8_t)written;
    if (!written)
        r->b.len = start;
done:
    JS_FreeValue(ctx, list);
    return written != 0;
}

/* depth: how many errors are around this one. False: there is no room for it. */
static bool nx_report_put_error(NxReport *r, JSValueConst err, uint32_t depth)
{
    JSContext *ctx = r->ctx;
    uint32_t at = r->b.len, room, fields = 0;
    uint32_t max = depth ? NX_MAX_INNER_TEXT : NX_MAX_ERROR_TEXT;
    bool is_object = JS_IsObject(err), said, whole;

    if (nx_begin_map(ctx, &r->b, 15, &at, &room)) {
        nx_report_failed(r);
        return false;
    }
    r->path[depth] = is_object ? JS_VALUE_GET_PTR(err) : NULL;
    said = is_object && nx_report_field(r, err, "message", max);
    if (!said) {
        JSValue text = nx_report_text_of(r, js_dup(err));
        if (!JS_IsString(text)) {
            text = JS_NewString(ctx, JS_IsSymbol(err) ? "a symbol was thrown" : is_object ? "an object was thrown" : "undefined");
            if (JS_IsException(text))
                nx_report_failed(r);
        }
        said = nx_report_put_text(r, "message", text, max);
        JS_FreeValue(ctx, text);
    }
    fields += said;
    if (is_object && !depth && JS_VALUE_GET_OBJ(err)->nx_is_unencoded)
        fields += nx_report_put_mark(r, "unencoded");
    if (is_object && !depth && JS_VALUE_GET_OBJ(err)->nx_is_refusal)
        fields += nx_report_put_mark(r, "refused");
    if (is_object) {
        /* a function's name is its own, and not of what was thrown */
        if (!JS_IsFunction(ctx, err))
            fields += nx_report_field(r, err, "name", NX_MAX_INNER_TEXT);
        fields += nx_report_field(r, err, "code", NX_MAX_INNER_TEXT);
    }
    if (!depth) {
        bool has_stack = is_object && nx_report_field(r, err, "stack", max);
        /* what is no Error has no stack of its own: the place is in the context */
        if (!has_stack)
            has_stack = nx_report_put_text(r, "stack", ctx->error_back_trace, max);
        fields += has_stack;
        if (is_object) {
            fields += nx_report_field(r, err, "capability", NX_MAX_INNER_TEXT);
            fields += nx_report_field(r, err, "extension", NX_MAX_INNER_TEXT);
            fields += nx_report_field(r, err, "method", NX_MAX_INNER_TEXT);
        }
    }
    /* an interrupt or a limit: the handler has added nothing to it, and must not run any more */
    whole = !r->stopped && !nx_ended && !JS_IsUncatchableError(err);
    if (whole && depth && !JS_IsError(err))
        fields += nx_report_put_value(r, err);
    else if (whole && is_object)
        fields += nx_report_put_properties(r, err);
    if (whole && is_object && (!depth || JS_IsError(err))) {
        fields += nx_report_put_cause(r, err, depth + 1);
        fields += nx_report_put_errors(r, err, depth + 1);
    }
    nx_patch_map_header(&r->b, at, room, fields);
    return true;
}

/* Describes err into out, which nobody frees. */
static void nx_describe_error(JSContext *ctx, NxBuf *out, JSValueConst err)
{
    NxReport r = { .ctx = ctx, .b = { .p = nx_report_bytes, .capacity = NX_REPORT_BYTES, .limit = NX_REPORT_BYTES },
                   .inner_left = NX_MAX_INNER_ERRORS };
    size_t used = nx.rt->malloc_state.malloc_size;

    /* the handler's code that this runs may use memory, even where the handler had used up its own, but not all that there is */
    nx_limit_memory(&nx.rt->malloc_state.malloc_limit, used + NX_REPORT_MEMORY);
    nx_report_put_error(&r, err, 0);
    *out = r.b;
}
