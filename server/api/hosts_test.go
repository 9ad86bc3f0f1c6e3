package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"imgbuild/server/registry"
)

const oldRecord = `{"sn":"SNA001","hostname":"web1","ip":"10.0.0.11","netmask":"255.255.255.0","gw":"10.0.0.1"}`

// curl runs curl as the scripts of the old service do and returns its output with the status behind it.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl here, which old scripts use")
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"-sS", "-w", " %{http_code}"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestOldScriptsWorkUnchanged(t *testing.T) {
	s := serve(t, legacy)
	base := s.URL + "/api/v1/servers"
	for _, step := range []struct {
		what string
		args []string
		want string
	}{
		{"an empty list is an array", []string{base}, "[]\n 200"},
		{"no such server is a 404 in JSON", []string{base + "/SNA001"}, `{"error":"there is no host SNA001"}` + "\n 404"},
		{"POST creates", []string{"-X", "POST", "-d", oldRecord, base}, oldRecord + "\n 201"},
		{"the list has it", []string{base}, "[" + oldRecord + "]\n 200"},
		{"GET returns it", []string{base + "/SNA001"}, oldRecord + "\n 200"},
		{"POST with JSON's own type replaces", []string{"-H", "Content-Type: application/json", "-d", strings.Replace(oldRecord, "0.11", "0.12", 1), base}, strings.Replace(oldRecord, "0.11", "0.12", 1) + "\n 200"},
		{"a field that is left out is empty then", []string{"-d", `{"sn":"SNA001","hostname":"web1"}`, base}, `{"sn":"SNA001","hostname":"web1","ip":"","netmask":"","gw":""}` + "\n 200"},
		{"a wrong address is refused by name", []string{"-d", `{"sn":"SNA001","ip":"10.0.0.256","netmask":"24","gw":"10.0.0.1"}`, base}, ` 422`},
		{"what is no JSON is refused", []string{"-d", "sn=SNA001", base}, ` 400`},
		{"another field is refused", []string{"-d", `{"sn":"SNA001","owner":"eve"}`, base}, `{"error":"without a token only sn, hostname, ip, netmask, gw can be written","field":"owner"}` + "\n 403"},
		{"PATCH is not for old scripts", []string{"-X", "PATCH", "-d", `{"hostname":"x"}`, base + "/SNA001"}, " 401"},
		{"PUT is not for old scripts", []string{"-X", "PUT", "-d", oldRecord, base + "/SNA001"}, " 401"},
		{"orders are not for old scripts", []string{"-d", `{"sn":"SNA001","reason":"x"}`, s.URL + "/api/v1/orders"}, " 401"},
		{"DELETE deletes", []string{"-X", "DELETE", base + "/SNA001"}, " 204"},
		{"what is deleted is gone", []string{"-X", "DELETE", base + "/SNA001"}, " 404"},
	} {
		if got := curl(t, step.args...); !strings.HasSuffix(got, step.want) {
			t.Errorf("%s: got %s, want %s", step.what, got, step.want)
		}
	}
}

func TestOldScriptsAreDeniedUnlessTheConfigurationNamesThem(t *testing.T) {
	s := serve(t)
	for _, c := range []call{{path: "/api/v1/servers"}, {path: "/api/v1/servers/SNA001"}, {method: "POST", path: "/api/v1/servers", body: oldRecord}, {method: "DELETE", path: "/api/v1/servers/SNA001"}} {
		s.want(t, c, 401, "")
		c.header = map[string]string{"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
		s.want(t, c, 401, "")
	}
}

func TestAnOldScriptErasesNothingThatItDoesNotKnow(t *testing.T) {
	s := serve(t, legacy)
	whole := `{"sn":"SNA001","hostname":"web1","ip":"10.0.0.11","netmask":"24","gw":"10.0.0.1","macs":["52:54:00:AA:BB:01"],"owner":"alice","rack":"r1","protect":true,
		"oob":{"type":"ipmi","address":"10.9.0.1","user":"root","password":"calvin"},"metadata":{"role":"web"},"image":"web/1.0"}`
	s.want(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: whole}, 201, "")
	if got := curl(t, "-d", strings.Replace(oldRecord, "web1", "web9", 1), s.URL+"/api/v1/servers"); !strings.HasSuffix(got, " 200") {
		t.Fatal(got)
	}
	var h registry.Host
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read}, 200, "").into(t, &h)
	if h.Hostname != "web9" || h.Owner != "alice" || !h.Protect || h.Rack != "r1" || len(h.MACs) != 1 || h.OOB == nil || !h.OOB.PasswordSet || string(h.Metadata) != `{"role":"web"}` || h.Image != "web/1.0" {
		t.Errorf("%+v", h)
	}
	if password, err := s.store.OOBPassword(t.Context(), "SNA001"); err != nil || password != "calvin" {
		t.Errorf("the password is %q, %v", password, err)
	}
}

func TestAPasswordNeverLeavesTheServer(t *testing.T) {
	s := serve(t)
	const secret = "correct-horse"
	body := `{"sn":"SNA001","oob":{"type":"ipmi","address":"10.9.0.1","user":"root","password":"` + secret + `"}}`
	answers := []answer{
		s.want(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: body}, 201, `"password_set":true`),
		s.want(t, call{path: "/api/v1/servers/SNA001", as: Admin}, 200, ""),
		s.want(t, call{path: "/api/v1/servers", as: Admin}, 200, ""),
		s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: `{"oob":{"password":"` + secret + `2"}}`}, 200, ""),
		s.want(t, call{path: "/api/v1/events", as: Admin}, 200, "password changed"),
		s.want(t, call{path: "/metrics", as: Read}, 200, ""),
	}
	for _, a := range answers {
		if strings.Contains(string(a.body), secret) {
			t.Errorf("%s", a.body)
		}
	}
	if strings.Contains(s.log.String(), secret) {
		t.Error("the log has it")
	}
}

func TestEveryMistakeInAHostNamesItsField(t *testing.T) {
	s := serve(t)
	for name, test := range map[string]struct {
		body, want string
		status     int
	}{
		"nothing":                  {"", `"error":"a JSON object is wanted`, 400},
		"no JSON":                  {"{", `"error":"a JSON object is wanted`, 400},
		"a list":                   {"[]", `"error":"a JSON object is wanted`, 400},
		"no serial number":         {"{}", `"field":"sn"`, 422},
		"an address that is none":  {`{"sn":"SNA001","ip":"10.0.0","netmask":"24"}`, `"ip"`, 422},
		"a field that there isn't": {`{"sn":"SNA001","hostnmae":"x"}`, `"field":"hostnmae"`, 422},
		"a deep one":               {`{"sn":"SNA001","oob":{"adress":"x"}}`, `"field":"oob.adress"`, 422},
		"a wrong type":             {`{"sn":"SNA001","protect":"yes"}`, `"field":"protect"`, 422},
		"several":                  {`{"sn":"SNA001","hostname":"a_b","macs":["x"],"uuid":"y"}`, `"fields":[`, 422},
	} {
		t.Run(name, func(t *testing.T) {
			s.want(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: test.body}, test.status, test.want)
		})
	}
	s.want(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: `{"sn":"SNA001","owner":"` + strings.Repeat("x", maxBody) + `"}`}, 413, "")
	s.want(t, call{method: "PUT", path: "/api/v1/servers/SNA001", as: Operate, body: `{"sn":"SNA002"}`}, 422, `"field":"sn"`)
}

func TestAHostIsReplacedOnlyByWhoHasSeenIt(t *testing.T) {
	s := serve(t)
	put := func(body string, header map[string]string) call {
		return call{method: "PUT", path: "/api/v1/servers/SNA001", as: Operate, body: body, header: header}
	}
	first := s.want(t, put(`{"hostname":"a"}`, nil), 201, `"sn":"SNA001"`)
	if first.header.Get("Location") != "/api/v1/servers/SNA001" || first.header.Get("ETag") != `"1"` {
		t.Errorf("%v", first.header)
	}
	s.want(t, put(`{"hostname":"b"}`, nil), 428, "If-Match")
	s.want(t, put(`{"hostname":"b"}`, map[string]string{"If-None-Match": "*"}), 412, "")
	s.want(t, put(`{"hostname":"b"}`, map[string]string{"If-Match": `"7"`}), 412, "")
	s.want(t, put(`{"hostname":"b"}`, map[string]string{"If-Match": `W/"1"`}), 412, "")
	s.want(t, put(`{"hostname":"b"}`, map[string]string{"If-None-Match": `"1"`}), 400, "")
	second := s.want(t, put(`{"hostname":"b","owner":"alice"}`, map[string]string{"If-Match": `"1"`}), 200, `"hostname":"b"`)
	if second.header.Get("ETag") != `"2"` {
		t.Errorf("%v", second.header)
	}
	s.want(t, put(`{"hostname":"c"}`, map[string]string{"If-Match": `"9", "2"`}), 200, `"hostname":"c"`)
	s.want(t, put(`{"hostname":"d"}`, map[string]string{"If-Match": `*`}), 200, `"hostname":"d"`)
	s.want(t, call{method: "PUT", path: "/api/v1/servers/SNB002", as: Operate, body: `{}`, header: map[string]string{"If-Match": `*`}}, 412, "")
	s.want(t, call{method: "PUT", path: "/api/v1/servers/SNB002", as: Operate, body: `{}`, header: map[string]string{"If-Match": `"1"`}}, 412, "")
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read, header: map[string]string{"If-None-Match": `W/"4"`}}, 304, "")
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read, header: map[string]string{"If-None-Match": `"3"`}}, 200, "")
	s.want(t, call{method: "DELETE", path: "/api/v1/servers/SNA001", as: Operate, header: map[string]string{"If-Match": `"3"`}}, 412, "")
	s.want(t, call{method: "DELETE", path: "/api/v1/servers/SNA001", as: Operate, header: map[string]string{"If-Match": `"4"`}}, 204, "")
}

func TestAMergePatchChangesWhatItNames(t *testing.T) {
	s := serve(t)
	s.want(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: strings.Replace(oldRecord, "}", `,"owner":"alice","metadata":{"a":1,"b":{"c":2}}}`, 1)}, 201, "")
	patch := func(body string, header map[string]string) call {
		return call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: body, header: header}
	}
	merge := map[string]string{"Content-Type": "application/merge-patch+json"}
	s.want(t, patch(`{"owner":null,"rack":"r1","metadata":{"b":{"d":3}}}`, merge), 200, `"metadata":{"a":1,"b":{"c":2,"d":3}}`)
	var h registry.Host
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read}, 200, "").into(t, &h)
	if h.Owner != "" || h.Rack != "r1" || h.Hostname != "web1" || h.Revision != 2 {
		t.Errorf("%+v", h)
	}
	s.want(t, patch(`{"state":"installed","revision":99,"rack":"r2"}`, merge), 200, `"state":"known"`)
	s.want(t, patch(`{"sn":"SNB002"}`, merge), 422, `"field":"sn"`)
	s.want(t, patch(`{"ip":"x"}`, merge), 422, `"ip"`)
	s.want(t, patch(`{"ip":`, merge), 400, "")
	s.want(t, patch(`{"rack":"r3"}`, map[string]string{"If-Match": `"1"`}), 412, "")
	s.want(t, patch(`{"rack":"r3"}`, map[string]string{"If-Match": `"3"`}), 200, "")
	s.want(t, patch(`[]`, map[string]string{"Content-Type": "application/json-patch+json"}), 415, "RFC 7396")
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNB002", as: Operate, body: "{}"}, 404, "")
}

func TestOldScriptsThatWriteAtTheSameTimeMakeOneHost(t *testing.T) {
	s := serve(t)
	var wg sync.WaitGroup
	statuses := make([]int, 16)
	for i := range statuses {
		wg.Go(func() {
			body := strings.Replace(oldRecord, "web1", "web"+strconv.Itoa(i), 1)
			statuses[i] = s.do(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: body}).status
		})
	}
	wg.Wait()
	created := 0
	for _, status := range statuses {
		if status == http.StatusCreated {
			created++
		} else if status != http.StatusOK {
			t.Errorf("%v", statuses)
		}
	}
	if created != 1 {
		t.Errorf("it was created %d times", created)
	}
}

func TestTenThousandHostsComeInPages(t *testing.T) {
	s := serve(t)
	const n = 1234
	for i := range n {
		if _, _, err := s.store.PutHost(t.Context(), registry.Host{SN: fmt.Sprintf("SN%05d", i), Rack: "r" + strconv.Itoa(i%3)}, "test", 0); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	path, pages := "/api/v1/servers?limit=500", 0
	for path != "" {
		a := s.want(t, call{path: path, as: Read}, 200, "")
		var page []registry.Host
		a.into(t, &page)
		for _, h := range page {
			seen[h.SN] = true
		}
		pages++
		path = strings.TrimSuffix(strings.TrimPrefix(a.header.Get("Link"), "<"), `>; rel="next"`)
	}
	if len(seen) != n || pages != 3 {
		t.Errorf("%d hosts in %d pages", len(seen), pages)
	}
	var list []json.RawMessage
	s.want(t, call{path: "/api/v1/servers", as: Read}, 200, "").into(t, &list)
	if len(list) != n {
		t.Errorf("%d without a limit", len(list))
	}
	s.want(t, call{path: "/api/v1/servers?rack=r1&match=00001", as: Read}, 200, `"SN00001"`)
	s.want(t, call{path: "/api/v1/servers?state=installed,failed", as: Read}, 200, "[]")
	s.want(t, call{path: "/api/v1/servers?state=instaled", as: Read}, 400, `"field":"state"`)
	s.want(t, call{path: "/api/v1/servers?rak=r1", as: Read}, 400, `there is no such parameter`)
	s.want(t, call{path: "/api/v1/servers?limit=0&inventory=perhaps", as: Read}, 400, `"fields":[{"field":"inventory"`)
}

func TestASerialNumberWithOddCharactersIsOne(t *testing.T) {
	s := serve(t)
	body := `{"sn":"7X/ä 01","hostname":"odd"}`
	a := s.do(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: body})
	if a.status == http.StatusUnprocessableEntity {
		t.Skip("the registry has no such serial numbers")
	}
	s.want(t, call{path: a.header.Get("Location"), as: Read}, 200, `"hostname":"odd"`)
}
