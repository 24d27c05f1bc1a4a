package main

import (
	"math"
	"slices"
)

// A spread is what is told of the values of all rounds.
type spread struct {
	median, low, high float64 // low and high: the quartiles
	n                 int
}

// spreadOf leaves out rounds in which there is no value.
func spreadOf(values []float64) spread {
	sorted := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	slices.Sort(sorted)
	return spread{quantile(sorted, 0.5), quantile(sorted, 0.25), quantile(sorted, 0.75), len(sorted)}
}

// quantile interpolates between the two nearest of sorted values. NaN if there are none.
func quantile(sorted []float64, part float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := part * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

func median(values []float64) float64 { return spreadOf(values).median }

// ratios divides round by round, each side less what there is without either. A round that lacks a value is NaN.
func ratios(of, ofLess, to, toLess []float64) []float64 {
	n := min(len(of), len(to))
	all := make([]float64, n)
	for i := range n {
		a, b := of[i], to[i]
		if ofLess != nil {
			a -= ofLess[i]
		}
		if toLess != nil {
			b -= toLess[i]
		}
		all[i] = a / b
	}
	return all
}
