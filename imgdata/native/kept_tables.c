/* As many sets as threads that decode wait in a few slots. */
#include "kept_tables.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ALIGNMENT 64
#define SLOTS 16

static _Atomic(Tables *) kept[SLOTS];

/* Each thread begins its search at a slot of its own: what it left there is still in the cache of its core. */
static unsigned first_slot(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned own; /* 0: none yet */

    if (own == 0)
        own = 1 + atomic_fetch_add(&threads, 1) % SLOTS;
    return own - 1;
}

Tables *tables_take(void)
{
    unsigned first = first_slot();
    Tables *tables = NULL;

    for (unsigned i = 0; i < SLOTS && tables == NULL; i++)
        tables = atomic_exchange(&kept[(first + i) % SLOTS], NULL);
    if (tables != NULL)
        return tables;
    tables = aligned_alloc(ALIGNMENT, (sizeof *tables + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    for (int i = 0; i < 2 && tables != NULL; i++)
        tables->dc[i].codes.is_set = tables->ac[i].codes.is_set = 0;
    return tables;
}

void tables_give(Tables *tables)
{
    unsigned first = first_slot();

    for (unsigned i = 0; i < SLOTS; i++) {
        Tables *none = NULL;
        if (atomic_compare_exchange_strong(&kept[(first + i) % SLOTS], &none, tables))
            return;
    }
    free(tables);
}
