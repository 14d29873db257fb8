/* See customary_loops.c. */
#define CHILDREN_RETURN
#include "customary_loops.c"
