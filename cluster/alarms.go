package cluster

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// alarmLasts is how long an alarm is shown after its cause was last seen. The causes that pass by themselves are tried
// again every few seconds.
const alarmLasts = time.Minute

// maxAlarms bounds what strangers can make us remember; nobody reads more.
const maxAlarms = 100

// alarms are what the operator should know now. Each has a key, so that the same one is there once.
type alarms struct {
	lasts    time.Duration // 0: alarmLasts
	onChange func()        // nil: nobody wants to know

	mu  sync.Mutex
	all map[string]alarm
}

type alarm struct {
	text  string
	until time.Time // zero: until it is cleared
}

// raise shows text until a while after it is last raised.
func (a *alarms) raise(key, text string) {
	a.put(key, alarm{text: text, until: time.Now().Add(cmp.Or(a.lasts, alarmLasts))})
}

// hold shows text until clear.
func (a *alarms) hold(key, text string) { a.put(key, alarm{text: text}) }

func (a *alarms) put(key string, al alarm) {
	a.mu.Lock()
	if a.all == nil {
		a.all = map[string]alarm{}
	}
	old, known := a.all[key]
	isNew := old.text != al.text
	if !known && len(a.all) >= maxAlarms {
		a.expire()
	}
	if known || len(a.all) < maxAlarms {
		a.all[key] = al
	}
	a.mu.Unlock()
	if isNew && a.onChange != nil {
		a.onChange()
	}
}

func (a *alarms) clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, key)
}

// texts of the alarms that have not run out, sorted.
func (a *alarms) texts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	texts := make([]string, 0, len(a.all))
	for _, al := range a.all {
		texts = append(texts, al.text)
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// expire removes what has run out. The caller holds mu.
func (a *alarms) expire() {
	now := time.Now()
	maps.DeleteFunc(a.all, func(_ string, al alarm) bool { return !al.until.IsZero() && now.After(al.until) })
}
