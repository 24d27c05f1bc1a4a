package main

import (
	"math"
	"testing"
)

func TestSpread(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3, 1}},
		{[]float64{4, 1, 3, 2}, spread{2.5, 1.75, 3.25, 4}},
		{[]float64{5, nan, 1, 3, 2, 4}, spread{3, 2, 4, 5}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.values, got, tt.want)
		}
	}
	if got := spreadOf([]float64{nan}); !math.IsNaN(got.median) || got.n != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	nan := math.NaN()
	// The machine is twice as slow in the second round: the ratio does not see it.
	if got := median(ratios([]float64{10, 20, nan}, nil, []float64{20, 40, 7}, nil)); got != 0.5 {
		t.Errorf("median of the ratios is %v, want 0.5", got)
	}
	if got := ratios([]float64{30}, []float64{10}, []float64{20}, []float64{15}); got[0] != 4 {
		t.Errorf("(30-10)/(20-15) is %v", got[0])
	}
}
