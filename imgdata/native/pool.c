/* One lock, taken once for each row: a row is a picture, some hundred microseconds of work. */
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A part of a row that several threads do. */
typedef struct Share {
    void (*work)(void *argument, int part);
    void *argument;
    int count, begun, done; /* parts */
    struct Share *next;
} Share;

struct Pool {
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    Job *first, *last; /* with rows that were not begun */
    Share *shares;     /* with parts that were not begun: they come first */
    int stopping, count, waiting;
    pid_t process;
    pthread_t threads[];
};

static void unlink_job(Pool *pool, Job *job)
{
    Job **link = &pool->first, *before = NULL;

    while (*link != NULL && *link != job) {
        before = *link;
        link = &before->next;
    }
    if (*link == NULL)
        return;
    *link = job->next;
    if (pool->last == job)
        pool->last = before;
}

/* The next row of the first job; the lock is held. */
static int take_row(Pool *pool, Job *job)
{
    int row = job->begun++;

    if (job->begun == job->count)
        unlink_job(pool, job);
    return row;
}

/* The next part; the lock is held, but while it is done. */
static void do_part(Pool *pool, Share *share)
{
    int part = share->begun++;

    if (share->begun == share->count) {
        Share **link = &pool->shares;
        while (*link != share)
            link = &(*link)->next;
        *link = share->next;
    }
    pthread_mutex_unlock(&pool->lock);
    share->work(share->argument, part);
    pthread_mutex_lock(&pool->lock);
    /* The last one: then it may be gone. */
    if (++share->done == share->count)
        pthread_cond_broadcast(&pool->finished);
}

/* The pool whose thread this is. */
static _Thread_local Pool *own;

int pool_helpers(void)
{
    int helpers;

    if (own == NULL)
        return 0;
    pthread_mutex_lock(&own->lock);
    helpers = own->first == NULL ? own->waiting : 0;
    pthread_mutex_unlock(&own->lock);
    return helpers;
}

void pool_share(void (*work)(void *argument, int part), void *argument, int count)
{
    Share share = {work, argument, count, 0, 0, NULL};

    if (own == NULL) {
        for (int part = 0; part < count; part++)
            work(argument, part);
        return;
    }
    pthread_mutex_lock(&own->lock);
    share.next = own->shares;
    own->shares = &share;
    pthread_cond_broadcast(&own->work);
    while (share.begun < count)
        do_part(own, &share);
    while (share.done < count)
        pthread_cond_wait(&own->finished, &own->lock);
    pthread_mutex_unlock(&own->lock);
}

static void *run(void *argument)
{
    Pool *pool = own = argument;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        Job *job;
        int row;

        pool->waiting++;
        while (pool->first == NULL && pool->shares == NULL && !pool->stopping)
            pthread_cond_wait(&pool->work, &pool->lock);
        pool->waiting--;
        /* Whoever shares does the parts that nobody begins. */
        if (pool->stopping)
            break;
        if (pool->shares != NULL) {
            do_part(pool, pool->shares);
            continue;
        }
        job = pool->first;
        row = take_row(pool, job);
        pthread_mutex_unlock(&pool->lock);
        job->work(job, row);
        pthread_mutex_lock(&pool->lock);
        if (++job->done == job->count)
            pthread_cond_broadcast(&pool->finished);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

void pool_free(Pool *pool)
{
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static Pool *pool_make(int threads)
{
    Pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof *pool->threads);
    pthread_condattr_t clock;

    if (pool == NULL)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&clock);
#ifndef __APPLE__
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, &clock);
    pthread_condattr_destroy(&clock);
    pool->process = getpid();
    return pool;
}

Pool *pool_start(int threads)
{
    Pool *pool = pool_make(threads);
    sigset_t all, before;

    if (pool == NULL)
        return NULL;
    /* Signals are for the threads that were there before. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->count < threads && pthread_create(&pool->threads[pool->count], NULL, run, pool) == 0)
        pool->count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->count == threads)
        return pool;
    pool_stop(pool);
    pool_free(pool);
    return NULL;
}

void pool_stop(Pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = 1;
    while (pool->first != NULL) {
        Job *job = pool->first;
        pool->first = job->next;
        job->count = job->begun;
    }
    pthread_cond_broadcast(&pool->work);
    pthread_cond_broadcast(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->count; i++)
        pthread_join(pool->threads[i], NULL);
}

void pool_submit(Pool *pool, Job *job)
{
    job->next = NULL;
    job->begun = job->done = 0;
    if (job->count == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    if (pool->stopping) {
        job->count = 0;
    } else {
        *(pool->first == NULL ? &pool->first : &pool->last->next) = job;
        pool->last = job;
        pthread_cond_broadcast(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
}

static struct timespec moment_in(double seconds)
{
    struct timespec moment;

#ifdef __APPLE__
    clock_gettime(CLOCK_REALTIME, &moment);
#else
    clock_gettime(CLOCK_MONOTONIC, &moment);
#endif
    moment.tv_sec += (time_t)seconds;
    moment.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (moment.tv_nsec >= 1000000000L) {
        moment.tv_sec++;
        moment.tv_nsec -= 1000000000L;
    }
    return moment;
}

int pool_wait(Pool *pool, Job *job, double seconds)
{
    struct timespec until = moment_in(seconds > 0 ? seconds : 0);
    int late = 0, all;

    pthread_mutex_lock(&pool->lock);
    while (job->done < job->count && !late) {
        if (seconds < 0)
            pthread_cond_wait(&pool->finished, &pool->lock);
        else
            late = pthread_cond_timedwait(&pool->finished, &pool->lock, &until) == ETIMEDOUT;
    }
    all = job->done == job->count;
    pthread_mutex_unlock(&pool->lock);
    return all;
}

void pool_cancel(Pool *pool, Job *job)
{
    pthread_mutex_lock(&pool->lock);
    unlink_job(pool, job);
    job->count = job->begun;
    pthread_cond_broadcast(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
}

int pool_is_here(const Pool *pool)
{
    return pool->process == getpid();
}
