/* libjpeg's errors and warnings -> longjmp. */
#include "turbo.h"

static void jump_back(j_common_ptr cinfo)
{
    longjmp(((Jump *)cinfo->err)->back, 1);
}

static void on_message(j_common_ptr cinfo, int level)
{
    if (level < 0)
        jump_back(cinfo);
}

static void print_nothing(j_common_ptr cinfo)
{
    (void)cinfo;
}

struct jpeg_error_mgr *jump_on_faults(Jump *jump)
{
    jpeg_std_error(&jump->manager);
    jump->manager.error_exit = jump_back;
    jump->manager.emit_message = on_message;
    jump->manager.output_message = print_nothing;
    return &jump->manager;
}
