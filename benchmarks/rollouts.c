/* Rollouts of N bodies in D dimensions, one system after the other: `nbody.rollout` written out, for rollouts.py.
 *
 * The same steps and rules, without what a step of tensors costs; part `agreement` of step_transfer.py holds both
 * together. A library is compiled for each N and D (-DN=3 -DD=2), whose loops then are known.
 * Methods: 0 Hermite's, 1 leapfrog made symmetric in time, 2 tsit5. Rules: 0 collision, 1 free fall, 2 Aarseth's,
 * 3 learned.
 */
#include <math.h>
#include <string.h>

enum { NUMBERS = 10, STAGES = 6 };
typedef double Vectors[N][D];
typedef struct { Vectors q, v, a, j, second, third; } State;

static double m[N], tableau[STAGES][STAGES];

#define EACH for (int i = 0; i < N; i++) for (int c = 0; c < D; c++)
#define PAIRS for (int i = 0; i < N; i++) for (int k = i + 1; k < N; k++)

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (int c = 0; c < D; c++) sum += a[c] * b[c];
    return sum;
}

/* Places and velocities from body i to k; the square of the distance. */
static double between(Vectors q, Vectors v, int i, int k, double *s, double *w) {
    for (int c = 0; c < D; c++) s[c] = q[k][c] - q[i][c], w[c] = v[k][c] - v[i][c];
    return dot(s, s);
}

static void slope(Vectors q, Vectors v, Vectors a, Vectors j) {
    EACH a[i][c] = j[i][c] = 0;
    PAIRS {
        double s[D], w[D], r2 = between(q, v, i, k, s, w), pull = 1 / (r2 * sqrt(r2));
        double closing = 3 * dot(s, w) / r2;
        for (int c = 0; c < D; c++) {
            double one = pull * s[c], two = pull * (w[c] - closing * s[c]);
            a[i][c] += m[k] * one, a[k][c] -= m[i] * one, j[i][c] += m[k] * two, j[k][c] -= m[i] * two;
        }
    }
}

static double energy(Vectors q, Vectors v) {
    double sum = 0, s[D], w[D];
    for (int i = 0; i < N; i++) sum += m[i] * dot(v[i], v[i]) / 2;
    PAIRS sum -= m[i] * m[k] / sqrt(between(q, v, i, k, s, w));
    return sum;
}

static void hermite(State *x, double h) {
    Vectors q, v, a, j;
    EACH q[i][c] = x->q[i][c] + h * (x->v[i][c] + h / 2 * (x->a[i][c] + h / 3 * x->j[i][c]));
    EACH v[i][c] = x->v[i][c] + h * (x->a[i][c] + h / 2 * x->j[i][c]);
    slope(q, v, a, j);
    EACH {
        double a0 = x->a[i][c], j0 = x->j[i][c], da = a0 - a[i][c];
        double v1 = x->v[i][c] + h / 2 * (a0 + a[i][c]) + h * h / 12 * (j0 - j[i][c]);
        x->q[i][c] += h / 2 * (x->v[i][c] + v1) + h * h / 12 * da;
        x->v[i][c] = v1, x->a[i][c] = a[i][c], x->j[i][c] = j[i][c];
        x->third[i][c] = (12 * da + 6 * h * (j0 + j[i][c])) / (h * h * h);
        x->second[i][c] = (-6 * da - h * (4 * j0 + 2 * j[i][c])) / (h * h) + h * x->third[i][c];
    }
}

static void leapfrog(State *x, double h) {
    EACH x->v[i][c] += h / 2 * x->a[i][c], x->q[i][c] += h * x->v[i][c];
    slope(x->q, x->v, x->a, x->j);
    EACH x->v[i][c] += h / 2 * x->a[i][c];
}

static void tsit5(State *x, double h) {
    Vectors v[STAGES + 1], a[STAGES + 1], q, unused;
    memcpy(v[0], x->v, sizeof q), memcpy(a[0], x->a, sizeof q);
    for (int n = 0; n < STAGES; n++) {
        EACH {
            double dq = 0, dv = 0;
            for (int k = 0; k <= n; k++) dq += tableau[n][k] * v[k][i][c], dv += tableau[n][k] * a[k][i][c];
            q[i][c] = x->q[i][c] + h * dq, v[n + 1][i][c] = x->v[i][c] + h * dv;
        }
        slope(q, v[n + 1], a[n + 1], unused);
    }
    memcpy(x->q, q, sizeof q), memcpy(x->v, v[STAGES], sizeof q), memcpy(x->a, a[STAGES], sizeof q);
}

static double collision(State *x, const double *p, int falling) {
    double least = INFINITY, s[D], w[D];
    PAIRS {
        double r2 = between(x->q, x->v, i, k, s, w), both = m[i] + m[k], meet = r2 / dot(w, w);
        least = fmin(least, r2 * r2 * r2 / (both * both));
        if (!falling) least = fmin(least, meet * meet);
    }
    return p[0] * sqrt(sqrt(least));
}

static double aarseth(State *x, const double *p) {
    double least = INFINITY;
    for (int i = 0; i < N; i++) {
        double a = sqrt(dot(x->a[i], x->a[i])), j = sqrt(dot(x->j[i], x->j[i]));
        double second = sqrt(dot(x->second[i], x->second[i])), third = sqrt(dot(x->third[i], x->third[i]));
        least = fmin(least, (a * second + j * j) / (j * third + second * second));
    }
    return sqrt(p[0] * least);
}

static double learned(State *x, const double *p) {
    double S = 0, pulled = 0, turn = 0, most = 0, U = 0, kinetic = 0, mass = 0, s[D], w[D];
    PAIRS {
        double r2 = between(x->q, x->v, i, k, s, w), r = sqrt(r2), c = dot(s, w) / r2;
        double A = dot(w, w) / r2, F = (m[i] + m[k]) / (r2 * r), W = A + F;
        S += W * W, pulled += W * F, turn += W * c * (2 * A + 5 * F), U += m[i] * m[k] / r, most = fmax(most, W * W);
    }
    for (int i = 0; i < N; i++) kinetic += m[i] * dot(x->v[i], x->v[i]) / 2, mass += m[i];
    double tau = 1 / sqrt(sqrt(S)), change = tau * turn / S / 2, E = fmax(fabs(kinetic - U), 0.01 * U);
    double depth = log(tau * pow(2 * E / mass, 1.5) / mass) / 5, log_e = 0, kappa = p[5];
    double seen[4] = {pulled / S, change * change, depth, 1 - most / S};
    for (int n = 0; n < 4; n++) log_e += p[1 + n] * seen[n], kappa += p[6 + n] * seen[n];
    double e = p[0] * exp(log_e);
    return e * exp(fmax(-1, fmin(1, e * kappa * change))) * tau;
}

static double told(int rule, State *x, const double *p) {
    return rule == 3 ? learned(x, p) : rule == 2 ? aarseth(x, p) : collision(x, p, rule);
}

/* Of `count` systems: x [count][2][N][D], at the end where it comes back; numbers [count][NUMBERS]. */
void rollouts(const double *masses, const double *weights, int count, double *x, double end, int method, int rule,
              const double *numbers, long max_steps, double *error, double *steps) {
    memcpy(m, masses, sizeof m), memcpy(tableau, weights, sizeof tableau);
    for (int b = 0; b < count; b++, x += 2 * N * D, numbers += NUMBERS) {
        State y, ahead;
        EACH y.q[i][c] = x[i * D + c], y.v[i][c] = x[(N + i) * D + c];
        slope(y.q, y.v, y.a, y.j);
        ahead = y, hermite(&ahead, 1e-6);  /* whose second and third derivatives a criterion may want */
        memcpy(y.second, ahead.second, sizeof y.second), memcpy(y.third, ahead.third, sizeof y.third);
        double E = energy(y.q, y.v), left = end, h = told(rule, &y, numbers);
        long taken = 0;
        while (left > 0 && taken < max_steps) {
            double dt = h < left ? fmin(h, left / 2) : left;
            method == 0 ? hermite(&y, dt) : method == 1 ? leapfrog(&y, dt) : tsit5(&y, dt);
            double wanted = told(rule, &y, numbers);
            if (method == 1) wanted = 1 / (2 / wanted - 1 / h);
            taken++, left = wanted > 0 ? left - dt : NAN, h = wanted;
        }
        error[b] = isnan(left) ? NAN : fabs(energy(y.q, y.v) / E - 1), steps[b] = taken;
        EACH x[i * D + c] = y.q[i][c], x[(N + i) * D + c] = y.v[i][c];
    }
}
