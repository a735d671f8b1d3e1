/* What the patches of QuickJS call, see patches/. Each runs no code of the handler. */
#ifndef NX_HOOKS_H
#define NX_HOOKS_H

#include "quickjs.h"

/* What happens once in a run must not take room in what happens always. */
#define NX_COLD __attribute__((cold, noinline))

/* True: the name is one of ours and keeps its value, the exception is pending. */
static NX_COLD bool nx_refuses_assignment(JSContext *ctx, JSAtom name);
/* True: the date, or the buffer, is of a key that may not be written; the exception is pending. */
static NX_COLD bool nx_refuses_write(JSContext *ctx, JSValueConst leaf);

/* The frame that runs has called, constructed, taken apart or iterated what cannot be. They throw, and name what it was. */
static NX_COLD JSValue nx_throw_not_callable(JSContext *ctx, const char *as);
static NX_COLD JSValue nx_throw_not_apart(JSContext *ctx, JSValueConst v);
static NX_COLD JSValue nx_throw_not_iterable(JSContext *ctx, JSValueConst v);

#endif
