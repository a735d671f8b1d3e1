/* What the handler's text calls a value that an error is about: `user.getName is not a function`.
 *
 * Nothing of this is in the bytecode. The text comes behind it, and is looked at only when an error is made: the frame that runs
 * knows its place, and what stands there is read, over a few characters, not parsed. Where that does not look as expected, the
 * error says less; it is never wrong about what happened. */

/* Longest name that is told, and how far is looked for the end of a pattern. */
#define NX_LONGEST_NAME 120
#define NX_LONGEST_PATTERN 2000

/* Where in the source the frame stands that runs; -1: not in code of the handler. */
static int32_t nx_where(JSContext *ctx)
{
    JSStackFrame *frame = ctx->rt->current_stack_frame;
    JSFunctionBytecode *b;
    uint32_t at = 0;
    int line, column;
    JSObject *p;

    if (!frame || !frame->cur_pc)
        return -1;
    p = JS_VALUE_GET_OBJ(frame->cur_func);
    if (!js_class_has_bytecode(p->class_id))
        return -1;
    b = p->u.func.function_bytecode;
    line = find_line_num(ctx, b, (uint32_t)(frame->cur_pc - b->byte_code_buf - 1), &column);
    for (; line > 1; line--) {
        const uint8_t *end = at < nx.source_len ? memchr(nx.source + at, '\n', nx.source_len - at) : NULL;
        if (!end)
            return -1;
        at = (uint32_t)(end - nx.source) + 1;
    }
    at += (uint32_t)column - 1;
    return at < nx.source_len ? (int32_t)at : -1;
}

/* The character there; 0 beyond either end. */
static uint8_t nx_char(int32_t at) { return at >= 0 && (uint32_t)at < nx.source_len ? nx.source[at] : 0; }

static bool nx_is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool nx_is_of_name(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '#' || c >= 0x80;
}

/* Whether this word stands at `at`. */
static bool nx_is_word(int32_t at, const char *word)
{
    for (; *word; word++, at++)
        if (nx_char(at) != (uint8_t)*word)
            return false;
    return !nx_is_of_name(nx_char(at));
}

static int32_t nx_skip_blanks(int32_t at)
{
    while (nx_is_blank(nx_char(at)))
        at++;
    return at;
}

/* The last character before `at` that is no blank: its place. */
static int32_t nx_back_over_blanks(int32_t at)
{
    do
        at--;
    while (nx_is_blank(nx_char(at)));
    return at;
}

/* Behind the string that begins at `at`. */
static int32_t nx_skip_string(int32_t at)
{
    uint8_t quote = nx_char(at++);
    while (nx_char(at) && nx_char(at) != quote)
        at += nx_char(at) == '\\' ? 2 : 1;
    return at + 1;
}

/* Behind the bracket that closes the one at `at`; -1: it is too far, or there is none. */
static int32_t nx_skip_brackets(int32_t at)
{
    int32_t end = at + NX_LONGEST_PATTERN;
    int depth = 0;

    while (at < end) {
        uint8_t c = nx_char(at);
        if (!c)
            return -1;
        if (c == '\'' || c == '"' || c == '`') {
            at = nx_skip_string(at);
            continue;
        }
        at++;
        if (c == '(' || c == '[' || c == '{')
            depth++;
        else if ((c == ')' || c == ']' || c == '}') && --depth == 0)
            return at;
    }
    return -1;
}

/* Words that begin something else than a name. */
static bool nx_is_keyword(int32_t at)
{
    static const char *const words[] = { "for",  "while", "do",    "if",   "return", "throw", "yield", "await", "const", "let",
                                         "var",  "new",   "typeof", "void", "delete", "in",    "of",    "case",  "else",  "switch" };
    size_t i;

    for (i = 0; i < countof(words); i++)
        if (nx_is_word(at, words[i]))
            return true;
    return false;
}

/* Behind the name that begins at `at`, its members included: `a.b`, `a?.b`, `a['b']`. -1: no name begins there. */
static int32_t nx_end_of_name(int32_t at)
{
    int32_t end = at, next;

    while (nx_is_of_name(nx_char(end)))
        end++;
    if (end == at || nx_is_keyword(at))
        return -1;
    for (;;) {
        next = nx_skip_blanks(end);
        if (nx_char(next) == '?' && nx_char(next + 1) == '.')
            next++;
        if (nx_char(next) == '[') {
            next = nx_skip_brackets(next);
            if (next < 0)
                return end;
        } else {
            if (nx_char(next) != '.')
                return end;
            next = nx_skip_blanks(next + 1);
            if (!nx_is_of_name(nx_char(next)))
                return end;
            while (nx_is_of_name(nx_char(next)))
                next++;
        }
        end = next;
    }
}

/* Where the expression begins whose last member's name is at `at`. *cut: it begins with something that has no name. */
static int32_t nx_begin_of_name(int32_t at, bool *cut)
{
    for (*cut = false;;) {
        int32_t dot = nx_back_over_blanks(at), before;
        if (nx_char(dot) != '.' || nx_char(dot - 1) == '.')
            return at;
        before = nx_back_over_blanks(nx_char(dot - 1) == '?' ? dot - 1 : dot);
        if (!nx_is_of_name(nx_char(before))) {
            *cut = true;
            return at;
        }
        while (nx_is_of_name(nx_char(before - 1)))
            before--;
        at = before;
    }
}

/* Whether blanks beside this character say nothing. */
static bool nx_is_joint(uint8_t c) { return c == '.' || c == '?' || c == '[' || c == ']' || c == '(' || c == ')'; }

/* Says what stands from `at` to `end`: strings as they are, elsewhere one blank for several, and none beside a member's dot or a
 * bracket. False: it is too long to be told. */
static bool nx_say_source(NxMessage *m, int32_t at, int32_t end)
{
    if (end <= at || end - at > NX_LONGEST_NAME)
        return false;
    while (at < end) {
        uint8_t c = nx_char(at);
        int32_t next = at + 1;
        if (c == '\'' || c == '"' || c == '`') {
            next = nx_skip_string(at) < end ? nx_skip_string(at) : end;
        } else if (nx_is_blank(c)) {
            next = nx_skip_blanks(at);
            if (!nx_is_joint(nx_char(at - 1)) && !nx_is_joint(nx_char(next)))
                nx_say(m, " ");
            at = next;
            continue;
        }
        for (; at < next; at++)
            nx_say(m, (const char[]){ (char)nx_char(at), 0 });
    }
    return true;
}

/* Says the expression one of whose names is at `at`, and whether it is called. */
static bool nx_say_expression(NxMessage *m, int32_t at, bool as_called)
{
    bool cut;
    int32_t end = nx_end_of_name(at), begin;

    if (end < 0)
        return false;
    begin = nx_begin_of_name(at, &cut);
    if (end - begin > NX_LONGEST_NAME)
        return false;
    if (cut)
        nx_say(m, "(...).");
    nx_say_source(m, begin, end);
    if (as_called && nx_char(nx_skip_blanks(end)) == '(')
        nx_say(m, "(...)");
    return true;
}

/* Whether the pattern that ends before `at`, in brackets, is a parameter. */
static bool nx_is_parameter(int32_t at)
{
    int32_t end = at + NX_LONGEST_PATTERN;

    while (at < end) {
        uint8_t c = nx_char(at);
        if (!c)
            return false;
        if (c == ')') {
            at = nx_skip_blanks(at + 1);
            return nx_char(at) == '{' || (nx_char(at) == '=' && nx_char(at + 1) == '>');
        }
        if (c == '\'' || c == '"' || c == '`')
            at = nx_skip_string(at);
        else if (c == '(' || c == '[' || c == '{')
            at = nx_skip_brackets(at);
        else if (c == ';' || c == ']' || c == '}')
            return false;
        else
            at++;
        if (at < 0)
            return false;
    }
    return false;
}

/* Says what the pattern that begins at `at` takes apart; names stand in quotes. */
static bool nx_say_taken_apart(NxMessage *m, int32_t at, const char *quote)
{
    int32_t before = nx_back_over_blanks(at), after = nx_skip_brackets(at), name, end;

    if (after < 0)
        return false;
    after = nx_skip_blanks(after);
    if (nx_char(before) == ':') {
        end = nx_back_over_blanks(before) + 1;
        for (name = end; nx_is_of_name(nx_char(name - 1));)
            name--;
        nx_say(m, quote);
        return nx_say_source(m, name, end) && (nx_say(m, quote), true);
    }
    if ((nx_char(before) == '(' || nx_char(before) == ',') && nx_is_parameter(after)) {
        int32_t word = nx_back_over_blanks(before) - 4;
        nx_say(m, nx_is_word(word, "catch") && !nx_is_of_name(nx_char(word - 1)) ? "what was thrown" : "the argument");
        return true;
    }
    if (nx_is_word(after, "of")) {
        nx_say(m, "an item of the list");
        return true;
    }
    if (nx_char(after) != '=' || nx_char(after + 1) == '=' || nx_char(after + 1) == '>')
        return false;
    after = nx_skip_blanks(after + 1);
    if (nx_is_word(after, "await"))
        after = nx_skip_blanks(after + 5);
    nx_say(m, quote);
    return nx_say_expression(m, after, true) && (nx_say(m, quote), true);
}

static const char *nx_handler_name(uint32_t *len)
{
    *len = nx.name_len;
    return nx.name_len ? nx.name : NULL;
}

/* ---- the errors ---- */

static const char *nx_nothing(JSValueConst v)
{
    return JS_IsNull(v) ? "null" : "undefined";
}

static JSValue nx_throw_not_callable(JSContext *ctx, const char *as)
{
    NxMessage m = { .len = 0 };
    int32_t at = nx_where(ctx);

    if (at >= 0 && nx_say_expression(&m, at, false))
        nx_say(&m, " is ");
    else
        m.len = 0;
    nx_say(&m, "not a ");
    nx_say(&m, as);
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

static JSValue nx_throw_not_apart(JSContext *ctx, JSValueConst v)
{
    NxMessage m = { .len = 0 };
    int32_t at = nx_where(ctx);

    nx_say(&m, "cannot destructure ");
    if (at < 0 || (nx_char(at) != '{' && nx_char(at) != '['))
        return nx_throw(ctx, JS_TYPE_ERROR, "Cannot convert undefined or null to object");
    if (!nx_say_taken_apart(&m, at, "'")) {
        m.len = strlen("cannot destructure ");
        nx_say(&m, nx_nothing(v));
        return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
    }
    nx_say(&m, " as it is ");
    nx_say(&m, nx_nothing(v));
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

static JSValue nx_throw_not_iterable(JSContext *ctx, JSValueConst v)
{
    NxMessage m = { .len = 0 };
    int32_t at = nx_where(ctx);
    bool is_nothing = JS_IsNull(v) || JS_IsUndefined(v);

    if (is_nothing && nx_char(at) == '[')
        return nx_throw_not_apart(ctx, v);
    /* a value that has no name may stand behind another's: of those that are something, only what is taken apart is told */
    if (is_nothing ? at >= 0 && nx_say_expression(&m, at, true) : nx_char(at) == '[' && nx_say_taken_apart(&m, at, "")) {
        nx_say(&m, " is not iterable");
        return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
    }
    return nx_throw_needs(ctx, "", is_nothing ? nx_nothing(v) : "value", " is not iterable");
}

static JSValue nx_throw_no_member(JSContext *ctx, JSValueConst v, JSValueConst key)
{
    NxMessage m = { .len = 0 };
    char buf[ATOM_GET_STR_BUF_SIZE];
    JSAtom name;

    /* an object would be asked for its text */
    if (JS_IsObject(key))
        return nx_throw_needs(ctx, "cannot read a property of ", nx_nothing(v), "");
    name = JS_ValueToAtom(ctx, key);
    if (name == JS_ATOM_NULL)
        return JS_EXCEPTION;
    nx_say(&m, "cannot read property '");
    nx_say(&m, JS_AtomGetStr(ctx, buf, sizeof(buf), name));
    nx_say(&m, "' of ");
    nx_say(&m, nx_nothing(v));
    JS_FreeAtom(ctx, name);
    return nx_throw_message(ctx, JS_TYPE_ERROR, &m);
}

static void nx_throw_class_called(JSContext *ctx)
{
    JSStackFrame *frame = ctx->rt->current_stack_frame;
    NxMessage m = { .len = 0 };
    int32_t at;

    ctx->rt->current_stack_frame = frame->prev_frame;
    at = nx_where(ctx);
    if (at < 0 || !nx_say_expression(&m, at, false)) {
        m.len = 0;
        nx_say(&m, "this");
    }
    nx_say(&m, " is a class: it is called with 'new'");
    nx_throw_message(ctx, JS_TYPE_ERROR, &m);
    if (JS_IsError(ctx->rt->current_exception))
        build_backtrace(ctx, ctx->rt->current_exception, JS_UNDEFINED, NULL, 0, 0, 0);
    ctx->rt->current_stack_frame = frame;
}
