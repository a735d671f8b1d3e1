/* State of one guest, all of it in linear memory: a reset of the memory resets it, a copy of the memory copies it. */
#ifndef NX_STATE_H
#define NX_STATE_H

#define NX_MAX_DEPTH 64             /* nesting of MessagePack values, both ways */
/* Containers that the host puts around what an effect holds: the list of effects, and the map of the one. */
#define NX_EFFECT_DEPTH 2
#define NX_MAX_OUTSTANDING 4096     /* extension calls without an answer */
#define NX_TEXT_OF(x) #x
#define NX_TEXT(x) NX_TEXT_OF(x)
#define NX_MAX_UNHANDLED 16         /* unhandled rejections that are reported one by one */
#define NX_INBOX_BYTES (16 * 1024)

/* An uncaught error as it is told to the host; sidecar/src/engine/guest_error.rs bounds the same again. */
#define NX_MAX_ERROR_TEXT (16 * 1024)
#define NX_MAX_INNER_TEXT (2 * 1024)     /* texts of causes, names, codes */
#define NX_MAX_ERROR_PAYLOAD (16 * 1024) /* an error's properties, or a cause that is no Error */
#define NX_MAX_ERROR_PROPERTIES 64
#define NX_MAX_ERROR_DEPTH 4      /* causes around one another */
#define NX_MAX_INNER_ERRORS 32    /* causes and errors of AggregateErrors, in all */
#define NX_MAX_AGGREGATE_ERRORS 16
#define NX_REPORT_BYTES (96 * 1024)
#define NX_REPORT_MEMORY (32 << 20)
/* What writing down the last changes of a failed handler may use beyond its limit. */
#define NX_FLUSH_MEMORY (1 << 20)

/* A key of $state that this execution has touched. */
typedef struct NxKey {
    JSAtom name;
    JSValue value;   /* JS_UNINITIALIZED: known to be absent */
    JSValue view;    /* what the handler sees: value itself, or a read-only view of it */
    uint8_t *bytes;  /* for objects that may be written: as nx_encode writes what the host knows, to find nested writes */
    uint32_t bytes_len;
    JSValue source;  /* what the handler has put there, where value is a copy of it */
    uint8_t *seen;   /* what could be seen of source without running code, and behind it what was sent */
    uint32_t seen_len;
    bool read_only;
} NxKey;

typedef struct NxCall {
    JSValue resolve; /* in promise style */
    JSValue reject;
    JSValue error; /* made where the call was made, so that a failure points there */
    JSAtom extension;
    JSAtom method;
    bool settled;
} NxCall;

/* A promise inside of the handler's value: what it comes to belongs into the result at this place. */
typedef struct NxHole {
    JSValue promise;
    uint32_t at;
    int depth;
} NxHole;

typedef struct NxGuest {
    JSRuntime *rt;
    JSContext *ctx;

    /* made once, part of the pristine image */
    JSClassID state_class, ext_class, ext_name_class;
    JSValue state_object, state_methods, language_names, ext_methods, ext_names, ext_text, read_only_handler, read_only_views;
    JSAtom atom_code, atom_capability, atom_extension, atom_method, atom_key;
    JSValue our_names; /* object: the globals that are ours, which keep their values */

    /* of the execution */
    JSValue handler_promise;
    const uint8_t *code, *args, *scope, *answer;
    uint32_t code_len, args_len, scope_len, answer_len;
    bool answer_ok;
    const uint8_t *source; /* the handler's text, behind its bytecode */
    uint32_t source_len;
    const char *name; /* what the client calls the handler */
    uint32_t name_len;
    bool has_read_only_leaves;
    uint32_t hidden_methods; /* bits: methods of $state whose name is a key that may be read, in the order of nx_state_methods */
    uint32_t no_calls; /* not 0: extension calls are refused */
    bool asks_again;   /* what has been asked before is asked once more: nothing may come of that but its answer */
    bool leaving;      /* the handler has failed: what it has changed is handed over */
    bool has_result;   /* the handler's value is encoded, in result */
    uint8_t *result;
    uint32_t result_len;
    NxHole *holes; /* promises in the result that are not settled yet */
    uint32_t hole_count, hole_capacity;
    NxKey *keys;
    uint32_t key_count, key_capacity;
    JSValue key_index; /* object: key -> place in keys */
    NxCall *calls;
    uint32_t call_count, call_capacity;
    uint32_t outstanding;
    uint32_t new_calls; /* issued in this segment */
    struct {
        JSValue promise, reason;
    } unhandled[NX_MAX_UNHANDLED];
    uint32_t unhandled_count;
    JSValue *kept; /* seen through a WeakRef by the job that runs */
    uint32_t kept_count, kept_capacity;
    size_t memory_peak;
} NxGuest;

static NxGuest nx;
static uint8_t nx_inbox[NX_INBOX_BYTES] __attribute__((aligned(16)));

#endif
