package main

import (
	"strings"
	"testing"
	"time"
)

func TestAProcessBeganWhenTheKernelSaysSo(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	stat := "7 (a) b) S " + strings.Repeat("0 ", 18) + "4200 0 0\n"

	// Up for 50 s, made 42 s after the start: 8 s old.
	if began := beganMs(stat, "50.00 99.00\n", now); began != 992_000 {
		t.Errorf("began at %v, expected 992000", began)
	}
}

func TestAStatThatCannotBeReadIsNoTime(t *testing.T) {
	for _, stat := range []string{"", "7 (a) S 0 0", "7 (a) S " + strings.Repeat("x ", 30)} {
		if began := beganMs(stat, "50.00 99.00", time.UnixMilli(1_000_000)); began != 0 {
			t.Errorf("%q gave %v, expected 0", stat, began)
		}
	}
}

func TestThisProcessBeganAMomentAgo(t *testing.T) {
	age := sinceEpoch(time.Now()) - processBeganMs()

	if age < -20 || age > 120_000 {
		t.Errorf("this test is %v ms old", age)
	}
}
