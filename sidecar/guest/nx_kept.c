/* What an object in $state can hold, which is what an encoding of it does. A property that none holds would be there for the rest of
 * the execution, and lost with it: it is refused where it is written. So is what would be lost when a value comes into the state.
 *
 * An object is of the state from when it was decoded for it, or encoded into it (its mark, see patches/11-marks.patch). */

/* Why an object of this class can have no property of this name, in $state; NULL: it can. */
static const char *nx_why_no_property(JSContext *ctx, const JSObject *p, JSAtom name)
{
    uint32_t index;

    if (JS_AtomGetKind(ctx, name) != JS_ATOM_KIND_STRING)
        return "keys in $state are strings: what a symbol names would be lost";
    switch (p->class_id) {
    case JS_CLASS_ARRAY:
        if (name == JS_ATOM_length || JS_AtomIsArrayIndex(ctx, &index, name))
            return NULL;
        return "an array in $state has elements only: what a name of it holds would be lost; use an object, or a key beside it";
    case JS_CLASS_MAP:
    case JS_CLASS_SET:
        return "a Map or Set in $state can have no properties of its own; write the value to a key beside it";
    case JS_CLASS_ERROR:
        return name == JS_ATOM_message || name == JS_ATOM_name
                   ? NULL
                   : "of an Error in $state name and message are kept; write the value to a key beside it";
    case JS_CLASS_NUMBER:
    case JS_CLASS_STRING:
    case JS_CLASS_BOOLEAN:
    case JS_CLASS_BIG_INT:
        return "an object that wraps a number, a text or a boolean can have no properties of its own in $state";
    default:
        return p->class_id == JS_CLASS_DATE || p->class_id == JS_CLASS_ARRAY_BUFFER || nx_is_view(p->class_id)
                   ? "a Date or bytes in $state can have no properties of its own; write the value to a key beside it"
                   : NULL;
    }
}

static bool nx_refuses_property(JSContext *ctx, JSValueConst obj, JSAtom name)
{
    const char *why;

    if (nx_refuses_write(ctx, obj))
        return true;
    if (!JS_IsObject(obj) || !JS_VALUE_GET_OBJ(obj)->nx_is_of_state)
        return false;
    why = nx_why_no_property(ctx, JS_VALUE_GET_OBJ(obj), name);
    if (why)
        nx_throw(ctx, JS_TYPE_ERROR, why);
    return why != NULL;
}

static bool nx_refuses_definition(JSContext *ctx, JSValueConst obj, JSAtom name, int flags)
{
    const char *why = NULL;
    int found, is_there;

    if (flags & (JS_PROP_HAS_GET | JS_PROP_HAS_SET))
        why = "$state holds values, not accessors";
    else if (!(flags & JS_PROP_ENUMERABLE)) {
        is_there = JS_GetOwnPropertyFlagsInternal(ctx, &found, JS_VALUE_GET_OBJ(obj), name);
        if (is_there < 0)
            return true;
        if (!is_there || (flags & JS_PROP_HAS_ENUMERABLE && found & JS_PROP_ENUMERABLE))
            why = "a property that is not enumerable would be lost from $state: assign the value";
    }
    if (why)
        nx_throw(ctx, JS_TYPE_ERROR, why);
    return why != NULL;
}

static bool nx_refuses_lock(JSContext *ctx, JSValueConst obj)
{
    if (likely(JS_VALUE_GET_OBJ(obj)->class_id != nx.state_class))
        return false;
    nx_throw(ctx, JS_TYPE_ERROR, "$state has keys and nothing else: it cannot be frozen or sealed, and has no prototype");
    return true;
}

/* Names that the language itself gives to an array: what a regular expression has found. They are not kept, as ever. */
static bool nx_is_of_match(JSAtom name)
{
    return name == JS_ATOM_index || name == JS_ATOM_input || name == JS_ATOM_groups || name == JS_ATOM_indices;
}

/* Marks an object that comes into the state. -1: exception, it has what would be lost. */
static int nx_keep_in_state(JSContext *ctx, JSValueConst v)
{
    JSObject *p = JS_VALUE_GET_OBJ(v);
    const JSShapeProperty *prop;
    const char *why;
    int i;

    if (p->class_id == JS_CLASS_PROXY || p->class_id == nx.state_class)
        return 0;
    p->nx_is_of_state = true;
    if (p->class_id == JS_CLASS_OBJECT || p->class_id == JS_CLASS_ERROR ||
        p->shape->prop_count == p->shape->deleted_prop_count + (p->class_id == JS_CLASS_ARRAY))
        return 0;
    prop = get_shape_prop(p->shape);
    for (i = 0; i < p->shape->prop_count; i++) {
        if (prop[i].atom == JS_ATOM_NULL || !(prop[i].flags & JS_PROP_ENUMERABLE) ||
            JS_AtomGetKind(ctx, prop[i].atom) != JS_ATOM_KIND_STRING || (p->class_id == JS_CLASS_ARRAY && nx_is_of_match(prop[i].atom)))
            continue;
        why = nx_why_no_property(ctx, p, prop[i].atom);
        if (why) {
            nx_throw(ctx, JS_TYPE_ERROR, why);
            return -1;
        }
    }
    return 0;
}
