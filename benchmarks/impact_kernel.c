/* The three passes of the impact estimates in plain C, stock by stock: what a compiler makes of the same method.

   A stock has n trades with signed sizes q and price changes d (in currency, d[0] unused); rows are t = 5 ... n-1.
   Blocks of BLOCK rows keep every intermediate array in the nearest cache; inner loops are written for vectors. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ORDER = 5, TERMS = 4, COLUMNS = TERMS + 2, BLOCK = 512, LONGEST = 64 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Gram matrix of (1, q[t-1], ..., q[t-5], q[t]): lagged sums over the rows, moved to each pair of lags by what enters
   at the head and leaves at the tail. */
void flow_products(const int32_t *flow, const int64_t *offsets, int64_t stocks, double *out) {
  for (int64_t s = 0; s < stocks; s++, out += 49) {
    const int32_t *q = flow + offsets[s];
    int64_t n = offsets[s + 1] - offsets[s];
    double lagged[ORDER + 1] = {0}, total = 0;
    for (int64_t begin = ORDER; begin < n; begin += BLOCK) {
      int64_t end = least(begin + BLOCK, n);
      double sum[ORDER + 2] = {0};
#pragma omp simd reduction(+ : sum)
      for (int64_t t = begin; t < end; t++) {
        double x = q[t];
        for (int j = 0; j <= ORDER; j++) sum[j] += x * q[t - j];
        sum[ORDER + 1] += x;
      }
      for (int j = 0; j <= ORDER; j++) lagged[j] += sum[j];
      total += sum[ORDER + 1];
    }
    double moment[ORDER + 1][ORDER + 1], mean[ORDER + 1];
    mean[0] = total;
    for (int j = 0; j <= ORDER; j++) moment[0][j] = lagged[j];
    for (int i = 1; i <= ORDER; i++) {
      mean[i] = mean[i - 1] + q[ORDER - i] - q[n - i];
      for (int j = i; j <= ORDER; j++)
        moment[i][j] = moment[i - 1][j - 1] + (double)q[ORDER - i] * q[ORDER - j] - (double)q[n - i] * q[n - j];
    }
    /* The order of the columns: 1, then lags 1 ... 5, then lag 0. */
    int place[ORDER + 1] = {1, 2, 3, 4, 5, 0};
    out[0] = (double)(n - ORDER);
    for (int i = 0; i <= ORDER; i++) {
      out[i + 1] = out[7 * (i + 1)] = mean[place[i]];
      for (int j = 0; j <= ORDER; j++) {
        int a = place[i] < place[j] ? place[i] : place[j], b = place[i] < place[j] ? place[j] : place[i];
        out[7 * (i + 1) + j + 1] = moment[a][b];
      }
    }
  }
}

/* Columns of rows begin ... begin+length-1: 1, D-E[D], DV-E[DV], change of D, change of DV, change of price.
   flow_fit: intercept, five weights, 1/(sigma sqrt 2). */
static void columns(const int32_t *q, const double *d, int64_t begin, int64_t length, const double *flow_fit,
                    double z[COLUMNS][BLOCK]) {
  double ratio[BLOCK];
#pragma omp simd
  for (int64_t i = 0; i < length; i++) {
    int64_t t = begin + i;
    double m = flow_fit[0];
    for (int j = 1; j <= ORDER; j++) m += flow_fit[j] * q[t - j];
    z[2][i] = q[t] - m;
    ratio[i] = m * flow_fit[6];
  }
#pragma omp simd
  for (int64_t i = 0; i < length; i++) ratio[i] = erf(ratio[i]);
#pragma omp simd
  for (int64_t i = 0; i < length; i++) {
    int64_t t = begin + i;
    double sign = (q[t] > 0) - (q[t] < 0), before = (q[t - 1] > 0) - (q[t - 1] < 0);
    z[0][i] = 1;
    z[1][i] = sign - ratio[i];
    z[3][i] = sign - before;
    z[4][i] = (double)q[t] - q[t - 1];
    z[5][i] = d[t];
  }
}

void column_products(const int32_t *flow, const double *change, const int64_t *offsets, int64_t stocks,
                     const double *flow_fit, double *out) {
  double z[COLUMNS][BLOCK];
  for (int64_t s = 0; s < stocks; s++, out += COLUMNS * COLUMNS, flow_fit += 7) {
    const int32_t *q = flow + offsets[s];
    const double *d = change + offsets[s];
    int64_t n = offsets[s + 1] - offsets[s];
    memset(out, 0, COLUMNS * COLUMNS * sizeof(double));
    for (int64_t begin = ORDER; begin < n; begin += BLOCK) {
      int64_t length = least(BLOCK, n - begin);
      columns(q, d, begin, length, flow_fit, z);
      for (int a = 0; a < COLUMNS; a++)
        for (int b = a; b < COLUMNS; b++) {
          double sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int64_t i = 0; i < length; i++) sum += z[a][i] * z[b][i];
          out[COLUMNS * a + b] += sum;
        }
    }
    for (int a = 0; a < COLUMNS; a++)
      for (int b = 0; b < a; b++) out[COLUMNS * a + b] = out[COLUMNS * b + a];
  }
}

/* Sums of windows W_t = s_t + ... + s_{t-lags}, by differences of a running sum that starts anew with each block.
   line: four slopes, then the means of the four regressors and of the price change.
   out: Gram matrix of the windows, gradient, sum of squared residuals, sum of squared changes of residuals. */
void score_sums(const int32_t *flow, const double *change, const int64_t *offsets, int64_t stocks,
                const double *flow_fit, const double *line, const int32_t *lags, double *out) {
  double z[COLUMNS][BLOCK], u[BLOCK + 1], w[TERMS][BLOCK];
  double(*running)[BLOCK + LONGEST] = malloc(TERMS * sizeof *running);
  for (int64_t s = 0; s < stocks; s++, out += 22, flow_fit += 7, line += 9) {
    const int32_t *q = flow + offsets[s];
    const double *d = change + offsets[s];
    int64_t n = offsets[s + 1] - offsets[s], width = lags[s] + 1;
    memset(out, 0, 22 * sizeof(double));
    for (int k = 0; k < TERMS; k++) memset(running[k], 0, (width + 1) * sizeof(double));
    u[0] = 0;
    for (int64_t begin = ORDER; begin < n + width - 1; begin += BLOCK) {
      int64_t length = least(BLOCK, n + width - 1 - begin), real = begin < n ? least(length, n - begin) : 0;
      if (real) columns(q, d, begin, real, flow_fit, z);
#pragma omp simd
      for (int64_t i = 0; i < real; i++) {
        double fitted = line[8];
        for (int k = 0; k < TERMS; k++) fitted += line[k] * (z[k + 1][i] - line[4 + k]);
        u[i + 1] = z[5][i] - fitted;
      }
      double squares = 0, neighbours = 0;
#pragma omp simd reduction(+ : squares, neighbours)
      for (int64_t i = 0; i < real; i++) {
        squares += u[i + 1] * u[i + 1];
        neighbours += (u[i + 1] - u[i]) * (u[i + 1] - u[i]);
      }
      if (begin == ORDER && real) neighbours -= u[1] * u[1];
      for (int k = 0; k < TERMS; k++) {
        /* running[0 ... width] holds the last sums of the block before, taken about the oldest of them. */
        double *sum = running[k], oldest = sum[0], gradient = 0;
        for (int64_t i = 0; i <= width; i++) sum[i] -= oldest;
        for (int64_t i = 0; i < real; i++) {
          double score = (z[k + 1][i] - line[4 + k]) * u[i + 1];
          sum[width + 1 + i] = sum[width + i] + score;
          gradient += score;
        }
        for (int64_t i = real; i < length; i++) sum[width + 1 + i] = sum[width + i];
        out[16 + k] += gradient;
#pragma omp simd
        for (int64_t i = 0; i < length; i++) w[k][i] = sum[width + 1 + i] - sum[1 + i];
        memmove(sum, sum + length, (width + 1) * sizeof(double));
      }
      u[0] = real ? u[real] : 0;
      out[20] += squares;
      out[21] += neighbours;
      for (int a = 0; a < TERMS; a++)
        for (int b = a; b < TERMS; b++) {
          double sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int64_t i = 0; i < length; i++) sum += w[a][i] * w[b][i];
          out[4 * a + b] += sum;
        }
    }
    for (int a = 0; a < TERMS; a++)
      for (int b = 0; b < a; b++) out[4 * a + b] = out[4 * b + a];
  }
  free(running);
}
