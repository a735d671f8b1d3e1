/* The handler's value, as it leaves.
 *
 * It is encoded once, since that may run code. A promise in it, at whatever depth, is awaited: what it comes to is put in its
 * place. One that is not settled yet leaves a hole, which is filled when all of them are; what fills it may have holes again.
 * A promise that is rejected is the handler's error. */

static int nx_run_jobs(JSContext *ctx);

/* Encodes the handler's value. -1: exception. */
static int nx_encode_result(JSContext *ctx)
{
    NxBuf out = { .awaits = true };
    JSValue result = JS_PromiseResult(ctx, nx.handler_promise);
    int failed = nx_encode(ctx, &out, result, 0);

    JS_FreeValue(ctx, result);
    if (failed) {
        nx_buf_free(ctx, &out);
        return -1;
    }
    nx.result = out.p;
    nx.result_len = out.len;
    nx.has_result = true;
    return 0;
}

/* 1: every promise is settled and none is rejected, 0: some are pending, -1: the reason of a rejection is pending. */
static int nx_holes_are_settled(JSContext *ctx)
{
    int settled = 1;
    uint32_t i;

    for (i = 0; i < nx.hole_count; i++)
        switch (JS_PromiseState(ctx, nx.holes[i].promise)) {
        case JS_PROMISE_REJECTED:
            JS_Throw(ctx, JS_PromiseResult(ctx, nx.holes[i].promise));
            return -1;
        case JS_PROMISE_PENDING:
            settled = 0;
            break;
        default:
            break;
        }
    return settled;
}

/* Writes the result anew, with what stands in its holes. -1: exception. */
static int nx_fill_holes(JSContext *ctx)
{
    NxHole *holes = nx.holes;
    uint32_t count = nx.hole_count, from = 0, i;
    NxBuf out = { .awaits = true };
    int failed = 0;

    nx.holes = NULL;
    nx.hole_count = nx.hole_capacity = 0;
    for (i = 0; i < count; i++) {
        if (!failed) {
            JSValue value = JS_PromiseResult(ctx, holes[i].promise);
            failed = nx_put(ctx, &out, nx.result + from, holes[i].at - from) || nx_encode(ctx, &out, value, holes[i].depth);
            from = holes[i].at;
            JS_FreeValue(ctx, value);
        }
        JS_FreeValue(ctx, holes[i].promise);
    }
    js_free(ctx, holes);
    if (failed || nx_put(ctx, &out, nx.result + from, nx.result_len - from)) {
        nx_buf_free(ctx, &out);
        return -1;
    }
    js_free(ctx, nx.result);
    nx.result = out.p;
    nx.result_len = out.len;
    return 0;
}

/* 1: the result is whole, 0: it waits for a promise, -1: exception. */
static int nx_complete_result(JSContext *ctx)
{
    int settled;

    if (!nx.has_result && (nx_encode_result(ctx) || nx_run_jobs(ctx)))
        return -1;
    while (nx.hole_count) {
        settled = nx_holes_are_settled(ctx);
        if (settled <= 0)
            return settled;
        if (nx_fill_holes(ctx) || nx_run_jobs(ctx))
            return -1;
    }
    return 1;
}
