package bench

import "testing"

func TestNumbersAsText(t *testing.T) {
	for _, c := range []struct {
		print func(float64) string
		v     float64
		want  string
	}{
		{digits, 0, "0"}, {digits, 2467.4, "2,470"}, {digits, 1234567, "1,230,000"}, {digits, 999.7, "1,000"},
		{digits, 243.2, "243"}, {digits, 17.46, "17.5"}, {digits, 1.2345, "1.23"}, {digits, 0.3941, "0.394"},
		{digits, 0.01794, "0.0179"}, {digits, -17.46, "-17.5"}, {digits, -2467, "-2,470"}, {digits, nan, "no number"}, {digits, inf, "no number"},
		{times, 0.976, "0.98"}, {times, 1.034, "1.03"}, {times, 0.0314, "0.0314"}, {times, 12.345, "12.3"}, {times, nan, "no number"},
		// A mark of 0.98 is not met by what is rounded to it.
		{exact, 0.9796, "0.980"}, {exact, 0.9794, "0.979"}, {exact, 1.0304, "1.030"}, {exact, 123.4, "123"},
		{inBytes, 0, "0 B"}, {inBytes, 1023, "1023 B"}, {inBytes, 12288, "12.0 KiB"}, {inBytes, -3 << 20, "-3.00 MiB"}, {inBytes, 5 << 40, "5,120 GiB"},
	} {
		if got := c.print(c.v); got != c.want {
			t.Errorf("%v as text is %q, want %q", c.v, got, c.want)
		}
	}
}

func TestWorkText(t *testing.T) {
	for want, p := range map[string]Point{
		"idle":                                    {Work: "idle"},
		"bulk to node, 1 connection":              {Work: "bulk to node", Connections: 1},
		"round trip of 4 KiB, 64 connections":     {Work: "round trip", Size: 4096, Connections: 64},
		"ALIVE2, 64 connections, 20,000 names":    {Work: "ALIVE2", Connections: 64, Names: 20000},
		"round trip of 64 B, 10,000 connections":  {Work: "round trip", Size: 64, Connections: 10000},
		"binary to node of 50 MiB, 1 connection":  {Work: "binary to node", Size: 50 << 20, Connections: 1},
		"set-up, 16 connections, 1 name":          {Work: "set-up", Connections: 16, Names: 1},
		"messages of 100 B, 1 connection, 1 name": {Work: "messages", Size: 100, Connections: 1, Names: 1},
	} {
		if got := workText(p); got != want {
			t.Errorf("%+v is called %q, want %q", p, got, want)
		}
	}
}

func TestTopics(t *testing.T) {
	for _, c := range []struct {
		work, metric, unit string
		want               topic
	}{
		{"bulk to node", "throughput", "MB/s", aboutBulk},
		{"bulk to node", "machine CPU", "s/GiB", aboutCPU},
		{"round trip", "p99.9", "us", aboutTrips},
		{"round trip", "trips", "1/s", aboutRates},
		{"set-up", "p50", "us", aboutSetUp},
		{"set-up", "rate", "1/s", aboutSetUp},
		{"set-up", "daemon CPU", "s/1000 set-ups", aboutCPU},
		{"idle", "daemon memory", "B", aboutMemory},
		{"anything", "new", "apples", aboutOthers},
	} {
		if got := topicOf(Point{Work: c.work, Metric: c.metric, Unit: c.unit}); got != c.want {
			t.Errorf("%s, %s in %s is about %q, want %q", c.work, c.metric, c.unit, got, c.want)
		}
	}
}
