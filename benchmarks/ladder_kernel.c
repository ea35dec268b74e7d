/* The guarded ladder Newton of jaxexec.solvers.guarded_newton in plain C, for one-sided power-law orders: what the same
 * arithmetic costs without a compiler for arrays in between. Built and called by benchmarks/kernel.py only.
 *
 *     q_k - q_{k+1} = b_k (d_k y_k + c_k),   y_{n-1} - y_n = w_n q_n,   q_0 = 1, q_N = 0,   y = rho^phi on the curve
 *
 * LANES orders go side by side through every step; a pack ends when its last order has converged. */
#include <math.h>
#include <stdlib.h>

#ifndef REAL
#define REAL double
#endif
#define LANES 8

typedef REAL row[LANES];

static REAL power(REAL x, REAL exponent) {
    return sizeof(REAL) == 8 ? (REAL)exp(exponent * log(x)) : (REAL)expf((float)exponent * logf((float)x));
}

/* One pack: b [steps][LANES], w [steps - 1][LANES], phi [LANES]; writes q [steps - 1][LANES]; returns iterations. */
static int pack(int steps, const row *b, const row *w, const REAL *phi, REAL tolerance, int most, row *q, row *work) {
    row *rate = work, *price = work + steps, *beta = work + 2 * steps, *inverse = work + 3 * steps;
    row *passed = work + 4 * steps, *y = work + 5 * steps;
    REAL one_over[LANES];
    for (int j = 0; j < LANES; j++) {
        REAL volume = 0;
        for (int k = 0; k < steps; k++) volume += b[k][j];
        one_over[j] = 1 / phi[j];
        for (int k = 0; k < steps; k++) { rate[k][j] = 1 / volume; price[k][j] = power(1 / volume, phi[j]); }
    }
    for (int iteration = 1; iteration <= most; iteration++) {
        REAL reach[LANES], level[LANES], next[LANES], gap[LANES], size[LANES];
        for (int j = 0; j < LANES; j++) {
            reach[j] = b[0][j] * rate[0][j] * one_over[j] / price[0][j];
            level[j] = 1 - b[0][j] * rate[0][j] * (1 - one_over[j]);
            gap[j] = size[j] = 0;
        }
        for (int n = 0; n < steps - 1; n++)
#pragma GCC ivdep
            for (int j = 0; j < LANES; j++) {
                REAL inv = 1 / (1 + reach[j] * w[n][j]);
                inverse[n][j] = inv;
                beta[n][j] = level[j] * inv;
                passed[n][j] = reach[j] * inv;
                reach[j] = passed[n][j] + b[n + 1][j] * rate[n + 1][j] * one_over[j] / price[n + 1][j];
                level[j] = beta[n][j] - b[n + 1][j] * rate[n + 1][j] * (1 - one_over[j]);
            }
        for (int j = 0; j < LANES; j++) y[steps - 1][j] = next[j] = level[j] / reach[j];
        for (int n = steps - 2; n >= 0; n--)
#pragma GCC ivdep
            for (int j = 0; j < LANES; j++) {
                q[n][j] = beta[n][j] - passed[n][j] * next[j];
                next[j] = next[j] * inverse[n][j] + w[n][j] * beta[n][j];
                y[n][j] = next[j];
            }
        for (int k = 0; k < steps; k++)
#pragma GCC ivdep
            for (int j = 0; j < LANES; j++) {
                REAL moved = rate[k][j] * (1 + (y[k][j] / price[k][j] - 1) * one_over[j]);
                int keep = moved >= (REAL)0.2 * rate[k][j];
                REAL low = (REAL)1e-3 * price[k][j], up = y[k][j] > low ? y[k][j] : low;
                REAL raised = power(keep ? moved : up, keep ? phi[j] : one_over[j]);
                REAL newrate = keep ? moved : raised, newprice = keep ? raised : up;
                REAL off = newprice - y[k][j], jump = fabs(newrate - moved);
                gap[j] += b[k][j] * (keep ? newrate * one_over[j] / newprice * off * off / 2 : jump * fabs(y[k][j]));
                size[j] += b[k][j] * fabs(moved * y[k][j]);
                rate[k][j] = newrate;
                price[k][j] = newprice;
            }
        int done = 1;
        for (int j = 0; j < LANES; j++) done &= gap[j] <= tolerance * size[j];
        if (done) return iteration;
    }
    return most;
}

/* packs x [steps][LANES] in, packs x [steps - 1][LANES] out; returns the iterations of all packs, -1 without memory. */
long solve(long packs, int steps, const REAL *b, const REAL *w, const REAL *phi, REAL tolerance, int most, REAL *q) {
    row *work = malloc(sizeof(row) * 6 * (size_t)steps);
    if (!work) return -1;
    long total = 0;
    for (long p = 0; p < packs; p++)
        total += pack(steps, (const row *)(b + p * steps * LANES), (const row *)(w + p * (steps - 1) * LANES),
                      phi + p * LANES, tolerance, most, (row *)(q + p * (steps - 1) * LANES), work);
    free(work);
    return total;
}
