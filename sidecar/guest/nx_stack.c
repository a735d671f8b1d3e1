/* Stack style: an extension call takes the whole stack of the guest away and returns to the host; nx_resume puts it back, and
 * the call returns its value. Binaryen's Asyncify pass makes every function able to leave and to re-enter itself; the four
 * imports of module "asyncify" are replaced by it. https://github.com/WebAssembly/binaryen/blob/main/src/passes/Asyncify.cpp
 *
 *   export -> nx_ni_body -> ... JavaScript ... -> nx_ni_suspend      start_unwind, every frame saves itself, stop_unwind
 *   export -> nx_ni_body -> ... the same ...   -> nx_ni_suspend      start_rewind, every frame restores itself, stop_rewind
 *
 * Where a frame has locals they go to the unwind buffer; its shadow frame stays where it is, so the stack pointer is kept
 * and set again. The names with nx_ni_ are never inlined: the pass tells by the function what to take away. */

#ifdef NX_STACK_STYLE

#define NX_ASYNCIFY(name) __attribute__((import_module("asyncify"), import_name(#name)))
void NX_ASYNCIFY(start_unwind) nx_start_unwind(void *buffer);
void NX_ASYNCIFY(stop_unwind) nx_stop_unwind(void);
void NX_ASYNCIFY(start_rewind) nx_start_rewind(void *buffer);
void NX_ASYNCIFY(stop_rewind) nx_stop_rewind(void);

uint32_t nx_get_stack_pointer(void);
void nx_set_stack_pointer(uint32_t at);

/* What a suspended stack may take. */
#define NX_UNWIND_BYTES (2u << 20)
/* The frames are saved first and the end is looked at after: room for what the largest shadow stack can hold beyond that. */
#define NX_UNWIND_SLACK (14u << 20)
/* Between the frames of an export and those of the body, so that another export's frames never lie over the body's. */
#define NX_EXPORT_FRAMES 4096u

enum { NX_NORMAL, NX_UNWINDING, NX_REWINDING };

/* Volatile: calls return twice, which the compiler cannot know. */
static volatile struct {
    struct {
        uint32_t cursor, end; /* as Asyncify reads them */
    } buffer;
    uint32_t state;
    uint32_t stack_pointer; /* of the suspended leaf */
} nx_stack;
static uint8_t nx_unwind_bytes[NX_UNWIND_BYTES + NX_UNWIND_SLACK] __attribute__((aligned(16)));

/* Returns twice: never in the segment that it ends, and in the one that goes on. */
static __attribute__((noinline)) void nx_ni_suspend(void)
{
    if (nx_stack.state == NX_REWINDING) {
        nx_stack.state = NX_NORMAL;
        nx_stop_rewind();
        return;
    }
    nx_stack.state = NX_UNWINDING;
    nx_stack.stack_pointer = nx_get_stack_pointer();
    nx_stack.buffer.cursor = (uint32_t)(uintptr_t)nx_unwind_bytes;
    nx_stack.buffer.end = nx_stack.buffer.cursor + NX_UNWIND_BYTES;
    nx_start_unwind((void *)&nx_stack.buffer);
}

static int32_t nx_ni_body(void);
static void nx_leave_suspended(uint32_t unwound);

/* To be part of an export itself: Asyncify leaves functions alone that call stop_unwind or start_rewind. */
static inline __attribute__((always_inline)) int32_t nx_enter_body(bool rewind)
{
    uint32_t top = nx_get_stack_pointer();
    int32_t status;

    if (rewind) {
        nx_stack.state = NX_REWINDING;
        nx_set_stack_pointer(nx_stack.stack_pointer);
        nx_stack.buffer.end = (uint32_t)(uintptr_t)(nx_unwind_bytes + sizeof(nx_unwind_bytes));
        nx_start_rewind((void *)&nx_stack.buffer);
    } else {
        nx_set_stack_pointer(top - NX_EXPORT_FRAMES);
    }
    status = nx_ni_body();
    if (nx_stack.state == NX_UNWINDING) {
        uint32_t used = nx_stack.buffer.cursor - (uint32_t)(uintptr_t)nx_unwind_bytes;
        nx_stack.state = NX_NORMAL;
        nx_stack.buffer.end = (uint32_t)(uintptr_t)(nx_unwind_bytes + sizeof(nx_unwind_bytes));
        nx_stop_unwind();
        nx_leave_suspended(used);
        status = used > NX_UNWIND_BYTES ? NX_TOO_DEEP : NX_SUSPENDED;
    }
    nx_set_stack_pointer(top);
    return status;
}

#endif
