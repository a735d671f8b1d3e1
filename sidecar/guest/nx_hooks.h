/* What the patches of QuickJS call, see patches/. Each runs no code of the handler. */
#ifndef NX_HOOKS_H
#define NX_HOOKS_H

#include "quickjs.h"

/* What happens once in a run must not take room in what happens always. */
#define NX_COLD __attribute__((cold, noinline))

/* True: the property of this object is one of ours and keeps its value, the exception is pending. */
static NX_COLD bool nx_refuses_assignment(JSContext *ctx, JSValueConst obj, JSAtom name);
static NX_COLD bool nx_refuses_deletion(JSContext *ctx, JSValueConst obj, JSAtom name);
/* True: the object takes no such property, since it is of the state, which could not hold it; the exception is pending. */
static NX_COLD bool nx_refuses_property(JSContext *ctx, JSValueConst obj, JSAtom name);
static NX_COLD bool nx_refuses_definition(JSContext *ctx, JSValueConst obj, JSAtom name, int flags);
/* True: it is $state, which takes any key, and has no prototype; the exception is pending. */
static bool nx_refuses_lock(JSContext *ctx, JSValueConst obj);
/* True: the date, or the buffer, is of a key that may not be written; the exception is pending. */
static NX_COLD bool nx_refuses_write(JSContext *ctx, JSValueConst leaf);

/* The frame that runs has called, constructed, taken apart or iterated what cannot be. They throw, and name what it was. */
static NX_COLD JSValue nx_throw_not_callable(JSContext *ctx, const char *as);
static NX_COLD JSValue nx_throw_not_apart(JSContext *ctx, JSValueConst v);
static NX_COLD JSValue nx_throw_not_iterable(JSContext *ctx, JSValueConst v);
/* A member of null or undefined is both read and written. */
static NX_COLD JSValue nx_throw_no_member(JSContext *ctx, JSValueConst v, JSValueConst key);
/* The frame that runs is that of a class that was called without `new`. Its caller's is the place of the error, stack and all. */
static NX_COLD void nx_throw_class_called(JSContext *ctx);

/* An error is thrown while memory was refused. */
static NX_COLD void nx_note_thrown(JSValueConst error);
/* An error comes to code of the handler that catches it. */
static void nx_note_caught(JSValueConst error);
/* An error is freed. */
static void nx_error_finalizer(JSRuntime *rt, JSValueConst error);

/* What is looked at through a WeakRef is kept until the job ends. -1: exception. */
static int nx_keep_for_job(JSContext *ctx, JSValueConst v);

/* What frames call the handler; NULL: as the bytecode does. */
static const char *nx_handler_name(uint32_t *len);

#endif
