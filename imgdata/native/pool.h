/* Threads that work through jobs: rows of one after the other, in order, several jobs waiting. */
#ifndef IMGDATA_POOL_H
#define IMGDATA_POOL_H

#include <stdint.h>

typedef struct Pool Pool;

/* A piece of work in `count` rows. The fields above the line are the caller's, all others the pool's. */
typedef struct Job {
    int count;
    /* Called from any thread, once for each row, several at a time. */
    void (*work)(struct Job *job, int row);
    /* ---- */
    struct Job *next;
    int begun, done; /* rows */
} Job;

/* NULL where threads can't be made. */
Pool *pool_start(int threads);

/* Waits for the rows that are being worked on, gives up all others, now and later, and ends the threads. Once. */
void pool_stop(Pool *pool);

/* After `pool_stop`, when nobody waits any more. */
void pool_free(Pool *pool);

void pool_submit(Pool *pool, Job *job);

/* Up to `seconds`, or for ever when negative; 1 when all rows of the job are done or given up. */
int pool_wait(Pool *pool, Job *job, double seconds);

/* Give up the rows that were not begun. */
void pool_cancel(Pool *pool, Job *job);

/* For a thread of a pool, within a row: how many others have nothing to do, and no row waits for them. 0 elsewhere. */
int pool_helpers(void);

/* Call `work` for each of `count` parts, in this thread and in those that have nothing to do; returns when all are done. */
void pool_share(void (*work)(void *argument, int part), void *argument, int count);

/* After a fork the threads are gone; nothing but this may be done with the pool then. */
int pool_is_here(const Pool *pool);

#endif
