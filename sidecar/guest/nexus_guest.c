/* The guest: QuickJS-ng and our shim in one translation unit, because the shim uses QuickJS internals (parsing a handler as
 * a function body, reading objects without running user code) that have no public API.
 *
 * Trust: everything in this file runs inside the sandbox. Nothing here protects the host; capabilities and limits are
 * enforced on the other side of the imports in nx_abi.h. What this side owes the host is only correct behaviour for
 * honest handlers, and never to crash on hostile ones in a way that costs more than this instance. */
#include <assert.h>
#include <errno.h>
#include <fenv.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "nx_abi.h"
#include "nx_libc.c"

/* The clock that QuickJS reads is ours: frozen for a segment, so that Date and $time agree. */
#define gettimeofday nx_gettimeofday
#define clock_gettime nx_clock_gettime

/* QuickJS-ng turns its stack guard off when it sees WASI; the guard works here, so it must not see it. */
#undef __wasi__
#include "nx_hooks.h"
#include "quickjs.c"

#include "nx_state.h"
#include "nx_throw.c"
#include "nx_names.c"
#include "nx_look.c"
#include "nx_kept.c"
#include "nx_write.c"
#include "nx_encode.c"
#include "nx_decode.c"
#include "nx_same.c"
#include "nx_errors.c"
#include "nx_views.c"
#include "nx_keys.c"
#include "nx_state.c"
#include "nx_effects.c"
#include "nx_stack.c"
#include "nx_extensions.c"
#include "nx_result.c"
#include "nx_run.c"
