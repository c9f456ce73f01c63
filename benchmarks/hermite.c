/* Hermite steps of three bodies of mass 1 in a plane, G = 1: those of `longstride.nbody.rollout`, for runs of
 * 1e8 steps. x: [n][2][3][2], left at the end. rule 0: a share of the collision time; 1: Aarseth's eta. */
#include <math.h>
#include <string.h>

static void slope(const double *q, const double *v, double *a, double *j) {
    memset(a, 0, 6 * sizeof *a);
    memset(j, 0, 6 * sizeof *j);
    for (int i = 0; i < 3; i++)
        for (int k = i + 1; k < 3; k++) {
            double s[2], w[2];
            for (int c = 0; c < 2; c++) s[c] = q[2 * k + c] - q[2 * i + c], w[c] = v[2 * k + c] - v[2 * i + c];
            double r2 = s[0] * s[0] + s[1] * s[1], pull = 1 / (r2 * sqrt(r2));
            double closing = 3 * (s[0] * w[0] + s[1] * w[1]) / r2;
            for (int c = 0; c < 2; c++) {
                double one = pull * s[c], two = pull * (w[c] - closing * s[c]);
                a[2 * i + c] += one, a[2 * k + c] -= one, j[2 * i + c] += two, j[2 * k + c] -= two;
            }
        }
}

static double length(const double *u) { return sqrt(u[0] * u[0] + u[1] * u[1]); }

static double wanted(int rule, double number, const double *q, const double *v, const double *a,
                     const double *j, const double *second, const double *third) {
    double least = INFINITY;
    if (rule == 0) {
        for (int i = 0; i < 3; i++)
            for (int k = i + 1; k < 3; k++) {
                double s0 = q[2 * k] - q[2 * i], s1 = q[2 * k + 1] - q[2 * i + 1];
                double w0 = v[2 * k] - v[2 * i], w1 = v[2 * k + 1] - v[2 * i + 1];
                double r2 = s0 * s0 + s1 * s1, pass = r2 / (w0 * w0 + w1 * w1);
                least = fmin(least, fmin(pass * pass, r2 * r2 * r2 / 4));
            }
        return number * sqrt(sqrt(least));
    }
    for (int i = 0; i < 6; i += 2) {
        double A = length(a + i), J = length(j + i), S = length(second + i), T = length(third + i);
        least = fmin(least, (A * S + J * J) / (J * T + S * S));
    }
    return sqrt(number * least);
}

/* q, v, a, j after dt, and the second and third derivatives of a there. */
static void step(double *q, double *v, double *a, double *j, double *second, double *third, double dt) {
    double q1[6], v1[6], a1[6], j1[6];
    for (int i = 0; i < 6; i++) {
        q1[i] = q[i] + dt * (v[i] + dt / 2 * (a[i] + dt / 3 * j[i]));
        v1[i] = v[i] + dt * (a[i] + dt / 2 * j[i]);
    }
    slope(q1, v1, a1, j1);
    for (int i = 0; i < 6; i++) {
        v1[i] = v[i] + dt / 2 * (a[i] + a1[i]) + dt * dt / 12 * (j[i] - j1[i]);
        q[i] += dt / 2 * (v[i] + v1[i]) + dt * dt / 12 * (a[i] - a1[i]);
        third[i] = (12 * (a[i] - a1[i]) + 6 * dt * (j[i] + j1[i])) / (dt * dt * dt);
        second[i] = (-6 * (a[i] - a1[i]) - dt * (4 * j[i] + 2 * j1[i])) / (dt * dt) + dt * third[i];
        v[i] = v1[i], a[i] = a1[i], j[i] = j1[i];
    }
}

void hermite(long n, double *x, double end, int rule, const double *numbers, double most, double *steps) {
    for (long b = 0; b < n; b++) {
        double *q = x + 12 * b, *v = q + 6, a[6], j[6], second[6], third[6], copy[24], left = end;
        slope(q, v, a, j);
        memcpy(copy, q, 12 * sizeof *q), memcpy(copy + 12, a, sizeof a), memcpy(copy + 18, j, sizeof j);
        step(copy, copy + 6, copy + 12, copy + 18, second, third, 1e-6); /* at rest a says nothing yet */
        double h = wanted(rule, numbers[b], q, v, a, j, second, third);
        for (steps[b] = 0; left > 0 && steps[b] < most; steps[b]++) {
            double dt = h < left ? fmin(h, left / 2) : left;
            step(q, v, a, j, second, third, dt);
            h = wanted(rule, numbers[b], q, v, a, j, second, third);
            left = h > 0 ? left - dt : 0;
        }
    }
}
