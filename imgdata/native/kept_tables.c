/* As many sets as threads that decode wait in a few slots. */
#include "kept_tables.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ALIGNMENT 64
#define SLOTS 16

static _Atomic(Tables *) kept[SLOTS];

Tables *tables_take(void)
{
    Tables *tables = NULL;

    for (int i = 0; i < SLOTS && tables == NULL; i++)
        tables = atomic_exchange(&kept[i], NULL);
    if (tables != NULL)
        return tables;
    tables = aligned_alloc(ALIGNMENT, (sizeof *tables + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    for (int i = 0; i < 2 && tables != NULL; i++)
        tables->dc[i].codes.is_set = tables->ac[i].codes.is_set = 0;
    return tables;
}

void tables_give(Tables *tables)
{
    for (int i = 0; i < SLOTS; i++) {
        Tables *none = NULL;
        if (atomic_compare_exchange_strong(&kept[i], &none, tables))
            return;
    }
    free(tables);
}
