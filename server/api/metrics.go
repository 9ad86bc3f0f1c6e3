package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"imgbuild/server/registry"
)

// Metrics are what /metrics shows. Other packages' counters are added with Add.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	streams  prometheus.Gauge
	dropped  prometheus.Counter
	denied   prometheus.Counter
}

// NewMetrics returns the metrics of the program itself and of its requests.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "imgserve_http_requests_total", Help: "HTTP requests by route and status."}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "imgserve_http_request_seconds", Help: "Time until the answer was out, by route; downloads take as long as their clients.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"method", "route"}),
		bytes:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "imgserve_http_response_bytes_total", Help: "Bytes of answers, by route: those of images are what machines have downloaded."}, []string{"route"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "imgserve_event_streams", Help: "Streams of events that are open."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "imgserve_event_streams_dropped_total", Help: "Streams of events that ended because their reader was too slow."}),
		denied:  prometheus.NewCounter(prometheus.CounterOpts{Name: "imgserve_wrong_tokens_total", Help: "Requests with a token that is not known."}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.bytes, m.streams, m.dropped, m.denied,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Add shows another package's counters.
func (m *Metrics) Add(c ...prometheus.Collector) error {
	for _, one := range c {
		if err := m.register(one); err != nil {
			return err
		}
	}
	return nil
}

func (m *Metrics) register(c prometheus.Collector) error { return m.registry.Register(c) }

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// request counts one request. What no route is for is one label: paths are the clients' to make up.
func (m *Metrics) request(method, pattern string, rec *recorder, took time.Duration) {
	_, route, _ := strings.Cut(pattern, " ")
	if route == "" {
		method, route = "other", "none"
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(rec.code())).Inc()
	m.seconds.WithLabelValues(method, route).Observe(took.Seconds())
	m.bytes.WithLabelValues(route).Add(float64(rec.bytes))
}

// state asks the registry and the catalogue when somebody looks.
type state struct {
	store     Store
	catalogue Catalogue

	up, hosts, orders, installs, lives, leases, events, images *prometheus.Desc
}

func newState(s Store, c Catalogue) *state {
	return &state{
		store: s, catalogue: c,
		up:       prometheus.NewDesc("imgserve_database_up", "1 if the database answers.", nil, nil),
		hosts:    prometheus.NewDesc("imgserve_hosts", "Hosts by state.", []string{"state"}, nil),
		orders:   prometheus.NewDesc("imgserve_orders", "Orders by state.", []string{"state"}, nil),
		installs: prometheus.NewDesc("imgserve_installations", "Live installations: running, waiting for a slot, waiting for their first boot.", []string{"phase"}, nil),
		lives:    prometheus.NewDesc("imgserve_live_hosts", "Hosts by the state of their last boot from memory.", []string{"state"}, nil),
		leases:   prometheus.NewDesc("imgserve_dhcp_leases", "Leases in the registry.", nil, nil),
		events:   prometheus.NewDesc("imgserve_events_total", "Events in the diary since the registry was made.", nil, nil),
		images:   prometheus.NewDesc("imgserve_images", "Releases, by whether they can be installed.", []string{"usable"}, nil),
	}
}

// Describe is part of prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.up, s.hosts, s.orders, s.installs, s.lives, s.leases, s.events, s.images} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector. Without a database the rest is still told.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	usable := map[bool]int{}
	for _, r := range s.catalogue.List() {
		usable[r.Problem == ""]++
	}
	gauge(s.images, float64(usable[true]), "yes")
	gauge(s.images, float64(usable[false]), "no")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := s.store.Counts(ctx)
	if err != nil {
		gauge(s.up, 0)
		return
	}
	gauge(s.up, 1)
	for _, name := range states() {
		gauge(s.hosts, float64(c.Hosts[registry.State(name)]), name)
	}
	for _, name := range orderStates() {
		gauge(s.orders, float64(c.Orders[registry.OrderState(name)]), name)
	}
	gauge(s.installs, float64(c.Installing), "running")
	gauge(s.installs, float64(c.Waiting), "waiting")
	gauge(s.installs, float64(c.FirstBoot), "first_boot")
	for _, name := range liveStates() {
		gauge(s.lives, float64(c.Live[registry.LiveState(name)]), name)
	}
	gauge(s.leases, float64(c.Leases))
	ch <- prometheus.MustNewConstMetric(s.events, prometheus.CounterValue, float64(c.LastEvent))
}
