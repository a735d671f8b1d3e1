/* The exports: making the pristine guest, compiling a handler, running it, resuming it. */

static JSValue nx_compile_handler(JSContext *ctx, const char *source, size_t len);

/* ---- memory ---- */

static void nx_note_memory(size_t more)
{
    size_t now;
    if (!nx.rt)
        return;
    now = nx.rt->malloc_state.malloc_size + more;
    if (now > nx.memory_peak)
        nx.memory_peak = now;
}

/* No memory: that of the whole guest is used up, whatever the limit is. */
static void *nx_or_refusal(void *p, size_t more)
{
    if (!p)
        nx_note_refusal(nx.rt ? nx.rt->malloc_state.malloc_size + more : more);
    return p;
}
static void *nx_calloc(void *opaque, size_t count, size_t size)
{
    (void)opaque;
    nx_note_memory(count * size);
    return nx_or_refusal(calloc(count, size), count * size);
}
static void *nx_malloc(void *opaque, size_t size)
{
    (void)opaque;
    nx_note_memory(size);
    return nx_or_refusal(malloc(size), size);
}
static void nx_free(void *opaque, void *p)
{
    (void)opaque;
    free(p);
}
static void *nx_realloc(void *opaque, void *p, size_t size)
{
    (void)opaque;
    nx_note_memory(size);
    return nx_or_refusal(realloc(p, size), size);
}
static size_t nx_usable_size(const void *p) { return malloc_usable_size((void *)p); }

static const JSMallocFunctions nx_malloc_functions = { nx_calloc, nx_malloc, nx_free, nx_realloc, nx_usable_size };

/* ---- the pristine guest ---- */

static int nx_interrupted(JSRuntime *rt, void *opaque)
{
    (void)rt, (void)opaque;
    nx_shared_block.ticks++;
    if (__atomic_load_n(&nx_shared_block.interrupt, __ATOMIC_RELAXED) != 0)
        nx_ended = true;
    if (nx_ended)
        nx.ctx->interrupt_counter = 1; /* the next poll asks again: nobody gets far who has swallowed this */
    return nx_ended;
}

static void nx_track_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason, bool is_handled, void *opaque)
{
    uint32_t i;

    (void)opaque;
    for (i = 0; i < nx.unhandled_count; i++) {
        if (JS_VALUE_GET_PTR(nx.unhandled[i].promise) != JS_VALUE_GET_PTR(promise))
            continue;
        if (is_handled) {
            JS_FreeValue(ctx, nx.unhandled[i].promise);
            JS_FreeValue(ctx, nx.unhandled[i].reason);
            nx.unhandled[i] = nx.unhandled[--nx.unhandled_count];
        }
        return;
    }
    if (!is_handled && nx.unhandled_count < NX_MAX_UNHANDLED) {
        nx.unhandled[nx.unhandled_count].promise = js_dup(promise);
        nx.unhandled[nx.unhandled_count++].reason = js_dup(reason);
    }
}

static JSValue nx_get_args(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int is_scope)
{
    const uint8_t *bytes = is_scope ? nx.scope : nx.args;
    uint32_t len = is_scope ? nx.scope_len : nx.args_len;
    JSValue v;

    (void)this_val, (void)argc, (void)argv;
    v = len ? nx_decode_payload(ctx, bytes, len) : is_scope ? JS_NewObject(ctx) : JS_NULL;
    /* decoded once: from now on it is a plain property */
    if (!JS_IsException(v) &&
        nx_define_str(ctx, ctx->global_obj, is_scope ? "$scope" : "$args", js_dup(v), JS_PROP_CONFIGURABLE | JS_PROP_ENUMERABLE) < 0) {
        JS_FreeValue(ctx, v);
        return JS_EXCEPTION;
    }
    return v;
}

static JSValue nx_set_args(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int is_scope)
{
    (void)this_val, (void)argc, (void)argv;
    return nx_throw_replaced(ctx, is_scope ? "$scope" : "$args", NULL, false);
}

static int nx_define_lazy(JSContext *ctx, const char *name, int is_scope)
{
    JSAtom atom = JS_NewAtom(ctx, name);
    JSValue getter = JS_NewCFunctionMagic(ctx, nx_get_args, name, 0, JS_CFUNC_generic_magic, is_scope);
    JSValue setter = JS_NewCFunctionMagic(ctx, nx_set_args, name, 1, JS_CFUNC_generic_magic, is_scope);
    int flags = JS_PROP_CONFIGURABLE | JS_PROP_ENUMERABLE, ret;

    if (atom == JS_ATOM_NULL || JS_IsException(getter) || JS_IsException(setter))
        return -1;
    ret = JS_DefinePropertyGetSet(ctx, ctx->global_obj, atom, getter, setter, flags);
    if (ret >= 0)
        ret = JS_DefinePropertyValue(ctx, nx.our_names, atom, JS_UNDEFINED, 0);
    JS_FreeAtom(ctx, atom);
    return ret < 0 ? -1 : 0;
}

static int nx_remove_globals(JSContext *ctx)
{
    static const char *const names[] = { "eval", "queueMicrotask", "SharedArrayBuffer" };
    size_t i;
    for (i = 0; i < countof(names); i++) {
        JSAtom atom = JS_NewAtom(ctx, names[i]);
        int ret = JS_DeleteProperty(ctx, ctx->global_obj, atom, JS_PROP_THROW);
        JS_FreeAtom(ctx, atom);
        if (ret < 0)
            return -1;
    }
    return 0;
}

/* Address of the block that both sides read. */
const NxShared *NX_EXPORT(nx_shared)(void)
{
    return &nx_shared_block;
}

/* Makes the guest. Runs once per image; no execution has a part in it, so its outcome is the same everywhere. */
int32_t NX_EXPORT(nx_init)(uint32_t stack_size)
{
    JSContext *ctx;

    nx_shared_block.abi_version = NX_ABI_VERSION;
    nx_shared_block.inbox = (uint32_t)(uintptr_t)nx_inbox;
    nx_shared_block.inbox_capacity = NX_INBOX_BYTES;
    nx_segment_time = 0;
    nx.rt = JS_NewRuntime2(&nx_malloc_functions, NULL);
    if (!nx.rt)
        return NX_FAILED;
    JS_SetMaxStackSize(nx.rt, stack_size);
    JS_UpdateStackTop(nx.rt);
    JS_SetCanBlock(nx.rt, false);
    JS_SetInterruptHandler(nx.rt, nx_interrupted, NULL);
    JS_SetHostPromiseRejectionTracker(nx.rt, nx_track_rejection, NULL);
    /* everything but JS_AddIntrinsicEval: without it no string becomes code, by whatever constructor */
    nx.ctx = ctx = JS_NewContextRaw(nx.rt);
    if (!ctx || JS_AddIntrinsicBaseObjects(ctx) || JS_AddIntrinsicDate(ctx) || JS_AddIntrinsicRegExp(ctx) || JS_AddIntrinsicJSON(ctx) ||
        JS_AddIntrinsicProxy(ctx) || JS_AddIntrinsicMapSet(ctx) || JS_AddIntrinsicTypedArrays(ctx) || JS_AddIntrinsicPromise(ctx) ||
        JS_AddIntrinsicWeakRef(ctx) || nx_remove_globals(ctx))
        return NX_FAILED;
    nx.atom_code = JS_NewAtom(ctx, "code");
    nx.atom_capability = JS_NewAtom(ctx, "capability");
    nx.atom_extension = JS_NewAtom(ctx, "extension");
    nx.atom_method = JS_NewAtom(ctx, "method");
    nx.atom_key = JS_NewAtom(ctx, "key");
    nx.handler_promise = JS_UNDEFINED;
    nx.our_names = JS_NewObjectProto(ctx, JS_NULL);
    if (JS_IsException(nx.our_names) || nx_init_state(ctx) || nx_init_effects(ctx) || nx_init_extensions(ctx) || nx_define_lazy(ctx, "$args", 0) ||
        nx_define_lazy(ctx, "$scope", 1))
        return NX_FAILED;
    JS_VALUE_GET_OBJ(ctx->global_obj)->nx_is_ours = true;
    JS_RunGC(nx.rt);
    nx_memory_baseline = nx.memory_peak = nx.rt->malloc_state.malloc_size;
    nx_segment_time = -1;
    return NX_DONE;
}

/* Room for an input that does not fit the inbox. 0: there is none. */
uint8_t *NX_EXPORT(nx_alloc)(uint32_t len)
{
    return malloc(len);
}

/* ---- leaving a segment ---- */

static int32_t nx_leave(int32_t status, const NxBuf *out)
{
    size_t used = nx.rt->malloc_state.malloc_size;

    nx_note_memory(0);
    nx_shared_block.out = out ? (uint32_t)(uintptr_t)out->p : 0;
    nx_shared_block.out_len = out ? out->len : 0;
    nx_shared_block.out_of_memory = nx_out_of_memory;
    nx_shared_block.for_memory = nx_is_for_memory(nx.rt->current_exception);
    nx_shared_block.memory_wanted = nx_memory_wanted > nx_memory_baseline ? (uint32_t)(nx_memory_wanted - nx_memory_baseline) : 0;
    nx_shared_block.memory_used = used > nx_memory_baseline ? (uint32_t)(used - nx_memory_baseline) : 0;
    nx_shared_block.memory_peak = (uint32_t)(nx.memory_peak - nx_memory_baseline);
    return status;
}

#ifdef NX_STACK_STYLE
/* unwound: bytes of the suspended stack */
static void nx_leave_suspended(uint32_t unwound)
{
    nx_leave(NX_SUSPENDED, NULL);
    nx_shared_block.out_len = unwound > NX_UNWIND_BYTES ? unwound : 0;
}
#endif

/* What was changed before the failure still counts, and there is a report, also when the handler has used up its memory: each
 * of the two may use a little more. Code that they run (getters) is held to that as well. */
static int32_t nx_fail(JSContext *ctx, JSValue err)
{
    size_t *limit = &nx.rt->malloc_state.malloc_limit;
    size_t used = nx.rt->malloc_state.malloc_size;
    bool for_memory = nx_is_for_memory(err);
    uint32_t refused = nx_out_of_memory;
    NxBuf out = { 0 };

    nx.leaving = true;
    nx.no_calls++; /* nor do they get answers any more */
    if (nx_memory_limit)
        nx_limit_memory(limit, (used > nx_memory_limit ? used : nx_memory_limit) + NX_FLUSH_MEMORY);
    nx_flush_nested_writes(ctx);
    nx_describe_error(ctx, &out, err);
    JS_FreeValue(ctx, err);
    /* also where there was no room to hand over what it had changed, or to say what is wrong */
    nx_refused_since = for_memory || refused != nx_out_of_memory;
    return nx_leave(NX_FAILED, &out);
}

static int32_t nx_fail_with_exception(JSContext *ctx)
{
    return nx_fail(ctx, JS_GetException(ctx));
}

static void nx_enter(void)
{
    nx_segment_time = -1;
    nx.new_calls = 0;
    JS_UpdateStackTop(nx.rt);
}

/* ---- jobs ---- */

/* A WeakRef that was made or looked through says the same until the job ends. */
static int nx_keep_for_job(JSContext *ctx, JSValueConst v)
{
    if (nx.kept_count && JS_VALUE_GET_PTR(nx.kept[nx.kept_count - 1]) == JS_VALUE_GET_PTR(v))
        return 0;
    if (nx.kept_count == nx.kept_capacity) {
        uint32_t capacity = nx.kept_capacity ? nx.kept_capacity * 2 : 8;
        JSValue *kept = js_realloc(ctx, nx.kept, capacity * sizeof(*kept));
        if (!kept)
            return -1;
        nx.kept = kept;
        nx.kept_capacity = capacity;
    }
    nx.kept[nx.kept_count++] = js_dup(v);
    return 0;
}

static void nx_end_job(JSContext *ctx)
{
    while (nx.kept_count)
        JS_FreeValue(ctx, nx.kept[--nx.kept_count]);
}

/* -1: an error is pending that ends the execution. */
static int nx_run_jobs(JSContext *ctx)
{
    JSContext *job_ctx;
    JSValue err;
    int ret;

    while (nx_end_job(ctx), !nx_ended && (ret = JS_ExecutePendingJob(nx.rt, &job_ctx)) != 0) {
        if (ret > 0)
            continue;
        /* the error knows its place; and without memory a promise may stay unsettled for ever */
        if (nx_ended || JS_IsUncatchableError(nx.rt->current_exception) || nx_is_for_memory(nx.rt->current_exception))
            return -1;
        /* a finalization callback that threw: nobody waits for it */
        err = JS_GetException(ctx);
        ret = nx_log_unhandled(ctx, err);
        JS_FreeValue(ctx, err);
        if (ret)
            return -1;
    }
    /* somebody has swallowed the error */
    return nx_has_ended(ctx) ? -1 : 0;
}

/* Nothing more can happen without an answer. */
static int32_t nx_leave_pending(JSContext *ctx)
{
    if (nx_flush_nested_writes(ctx) || nx_has_ended(ctx))
        return nx_fail_with_exception(ctx);
    return nx_leave(nx.outstanding ? NX_SUSPENDED : NX_STUCK, NULL);
}

static int32_t nx_settle_segment(JSContext *ctx)
{
    NxBuf out = { 0 };
    uint32_t i;
    int whole;

    if (nx_run_jobs(ctx))
        return nx_fail_with_exception(ctx);
    switch (JS_PromiseState(ctx, nx.handler_promise)) {
    case JS_PROMISE_PENDING:
        return nx_leave_pending(ctx);
    case JS_PROMISE_REJECTED:
        return nx_fail(ctx, JS_PromiseResult(ctx, nx.handler_promise));
    default:
        whole = nx_complete_result(ctx);
        if (whole < 0)
            return nx_fail_with_exception(ctx);
        /* calls that nobody waited for are still delivered before the handler counts as done */
        if (nx.new_calls && nx.outstanding) {
            if (nx_flush_nested_writes(ctx) || nx_has_ended(ctx))
                return nx_fail_with_exception(ctx);
            return nx_leave(NX_SUSPENDED, NULL);
        }
        if (!whole)
            return nx_leave_pending(ctx);
        for (i = 0; i < nx.unhandled_count; i++) {
            /* telling of it may run code, which may handle the rejection and so take it from the table */
            JSValue reason = js_dup(nx.unhandled[i].reason);
            int failed = nx_log_unhandled(ctx, reason);
            JS_FreeValue(ctx, reason);
            if (failed)
                return nx_fail_with_exception(ctx);
        }
        /* last of all, since all of the above may run code */
        if (nx_flush_nested_writes(ctx) || nx_has_ended(ctx))
            return nx_fail_with_exception(ctx);
        out.p = nx.result;
        out.len = nx.result_len;
        return nx_leave(NX_DONE, &out);
    }
}

/* ---- compiling and running ---- */

/* Bytecode, then the source, then the length of the source in four bytes, the least first. */
static int nx_put_source(JSContext *ctx, NxBuf *out, const char *source, uint32_t len)
{
    uint8_t tail[4] = { (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16), (uint8_t)(len >> 24) };
    return nx_put(ctx, out, source, len) || nx_put(ctx, out, tail, sizeof(tail)) ? -1 : 0;
}

/* What nx_put_source has put together. */
static void nx_take_code(const uint8_t *code, uint32_t len)
{
    uint32_t source_len = 0;

    if (len >= 4)
        source_len = code[len - 4] | code[len - 3] << 8 | code[len - 2] << 16 | (uint32_t)code[len - 1] << 24;
    if (len < 4 || source_len > len - 4)
        source_len = 0, len = 4; /* nothing of it is code */
    nx.code = code, nx.code_len = len - 4 - source_len;
    nx.source = code + nx.code_len, nx.source_len = source_len;
}

/* source: UTF-8, with a NUL behind its len bytes. out: what nx_run takes as its code. */
int32_t NX_EXPORT(nx_compile)(const char *source, uint32_t len, uint32_t memory_limit)
{
    JSContext *ctx = nx.ctx;
    NxBuf out = { 0 };
    JSValue f;
    size_t size;

    nx_enter();
    nx_compiling = true;
    nx_limit_memory(&nx.rt->malloc_state.malloc_limit, nx_memory_baseline + memory_limit);
    f = nx_compile_handler(ctx, source, len);
    if (JS_IsException(f))
        return nx_fail_with_exception(ctx);
    out.p = JS_WriteObject(ctx, &size, f, JS_WRITE_OBJ_BYTECODE);
    JS_FreeValue(ctx, f);
    if (!out.p)
        return nx_fail_with_exception(ctx);
    out.len = out.capacity = (uint32_t)size;
    if (nx_put_source(ctx, &out, source, len))
        return nx_fail_with_exception(ctx);
    return nx_leave(NX_DONE, &out);
}

/* From bytecode to the end of the segment. In stack style a suspended stack is put back by calling it again: it takes nothing,
 * and is never inlined. */
static __attribute__((noinline)) int32_t nx_ni_body(void)
{
    JSContext *ctx = nx.ctx;
    JSValue f = JS_ReadObject(ctx, nx.code, nx.code_len, JS_READ_OBJ_BYTECODE);

    if (JS_IsException(f))
        return nx_fail_with_exception(ctx);
    f = js_closure(ctx, f, NULL, NULL);
    if (JS_IsException(f))
        return nx_fail_with_exception(ctx);
    nx.handler_promise = JS_CallFree(ctx, f, JS_UNDEFINED, 0, NULL);
    if (JS_IsException(nx.handler_promise)) {
        nx.handler_promise = JS_UNDEFINED;
        return nx_fail_with_exception(ctx);
    }
    return nx_settle_segment(ctx);
}

#ifdef NX_STACK_STYLE
static inline __attribute__((always_inline)) int32_t nx_start_body(void) { return nx_enter_body(false); }
static inline __attribute__((always_inline)) int32_t nx_resume_body(uint32_t call)
{
    /* the segment ended in the last call that was made */
    return call + 1 == nx.call_count ? nx_enter_body(true) : NX_BAD_CALL;
}
#else
static int32_t nx_start_body(void) { return nx_ni_body(); }
static int32_t nx_resume_body(uint32_t call)
{
    if (nx_settle_call(nx.ctx, call))
        return nx_fail_with_exception(nx.ctx);
    return nx_settle_segment(nx.ctx);
}
#endif

int32_t NX_EXPORT(nx_run)(const uint8_t *code, uint32_t code_len, const uint8_t *args, uint32_t args_len, const uint8_t *scope,
                          uint32_t scope_len, const char *name, uint32_t name_len, uint64_t seed, uint32_t memory_limit,
                          uint32_t hidden_methods)
{
    nx_enter();
    nx_take_code(code, code_len);
    nx.name = name, nx.name_len = name_len;
    nx.hidden_methods = hidden_methods;
    nx.args = args, nx.args_len = args_len;
    nx.scope = scope, nx.scope_len = scope_len;
    nx.ctx->random_state = seed ? seed : 1;
    nx_limit_memory(&nx.rt->malloc_state.malloc_limit, nx_memory_baseline + memory_limit);
    return nx_start_body();
}

/* Takes value over when it comes from nx_alloc. ok: the call's answer; not ok: {message, name?, code?}, as MessagePack; no bytes: undefined */
int32_t NX_EXPORT(nx_resume)(uint32_t call, uint32_t ok, const uint8_t *value, uint32_t len)
{
    if (call >= nx.call_count || nx.calls[call].settled)
        return NX_BAD_CALL;
    nx_segment_time = -1;
    nx.new_calls = 0;
    nx.answer = value, nx.answer_len = len;
    nx.answer_ok = ok != 0;
    return nx_resume_body(call);
}

/* ---- parsing ---- */

/* Disposes of what the body uses, where nothing was thrown. */
static void nx_emit_disposal(JSParseState *s)
{
    emit_op(s, OP_using_dispose_init);
    emit_op(s, OP_dispose_scope);
    emit_u16(s, s->cur_func->body_scope);
    emit_op(s, OP_using_dispose_end);
}

/* Parses source as the body of an async function, as it stands: nothing is wrapped around it, so lines and columns are the
 * handler's own, and no text can close the function early. Modelled on how quickjs.c parses a function body. */
static JSValue nx_compile_handler(JSContext *ctx, const char *source, size_t len)
{
    JSParseState state, *s = &state;
    JSFunctionDef *fd;
    BlockEnv using_block;
    JSVarScope *body;
    bool uses = false;

    js_parse_init(ctx, s, source, len, "handler.js", 1);
    fd = js_new_function_def(ctx, NULL, false, false, "handler.js", 1, 1);
    if (!fd)
        return JS_EXCEPTION;
    s->cur_func = fd;
    s->allow_html_comments = true;
    fd->func_name = JS_NewAtom(ctx, "handler");
    fd->func_kind = JS_FUNC_ASYNC;
    fd->func_type = JS_PARSE_FUNC_STATEMENT;
    fd->has_arguments_binding = true;
    fd->has_this_binding = true;
    fd->arguments_allowed = true;
    fd->new_target_allowed = true;
    fd->has_simple_parameter_list = true;
    fd->in_function_body = true;
    if (push_scope(s) < 0)
        goto fail;
    fd->body_scope = fd->scope_level;
    if (next_token(s) || js_parse_directives(s))
        goto fail;
    while (s->token.val != TOK_EOF) {
        if (js_parse_source_element(s))
            goto fail;
        if (!uses && fd->scopes[fd->body_scope].has_using) {
            /* from here on whatever leaves the body disposes of what it uses */
            uses = true;
            push_break_entry(fd, &using_block, JS_ATOM_NULL, -1, -1, 1);
            using_block.has_using = true;
            using_block.using_scope_level = fd->body_scope;
        }
    }
    if (uses)
        pop_break_entry(fd);
    if (js_is_live_code(s)) {
        if (uses) {
            emit_op(s, OP_drop); /* the place of the catch */
            nx_emit_disposal(s);
        }
        emit_return(s, false);
    }
    if (uses) {
        body = &fd->scopes[fd->body_scope];
        emit_label(s, body->using_label_catch);
        emit_op(s, OP_dispose_scope);
        emit_u16(s, fd->body_scope);
        nx_emit_throw_again(s);
        emit_label(s, body->using_label_end);
    }
    return js_create_function(ctx, fd);
fail:
    free_token(s, &s->token);
    js_free_function_def(ctx, fd);
    return JS_EXCEPTION;
}
