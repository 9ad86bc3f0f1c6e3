package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
	"imgbuild/server/swarm"
)

// contract is the API's description, against which every answer of the tests is held.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
}

func readContract(t testing.TB) *contract {
	t.Helper()
	text, err := openAPI()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	c.doc = doc.(map[string]any)
	return c
}

// at follows a path of keys and $refs through the document; pointer is where it ends.
func (c *contract) at(keys ...string) (value any, pointer string) {
	value = c.doc
	for _, k := range keys {
		m, ok := value.(map[string]any)
		if !ok {
			return nil, ""
		}
		value, pointer = m[k], pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		for {
			m, ok := value.(map[string]any)
			ref, isRef := m["$ref"].(string)
			if !ok || !isRef || len(m) > 1 {
				break
			}
			pointer = strings.TrimPrefix(ref, "#")
			value = c.doc
			for _, part := range strings.Split(pointer, "/")[1:] {
				value = value.(map[string]any)[part]
			}
		}
	}
	return value, pointer
}

func (c *contract) schema(pointer string) (*jsonschema.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.schemas[pointer]; ok {
		return s, nil
	}
	s, err := c.compiler.Compile("openapi.json#" + pointer)
	c.schemas[pointer] = s
	return s, err
}

// path finds the document's path for a request's.
func (c *contract) path(of string) string {
	paths, _ := c.at("paths")
	for template := range paths.(map[string]any) {
		want, got := strings.Split(template, "/"), strings.Split(of, "/")
		if len(want) == len(got) && !slices.ContainsFunc(want, func(s string) bool {
			i := slices.Index(want, s)
			return !strings.HasPrefix(s, "{") && s != got[i]
		}) {
			return template
		}
	}
	return ""
}

// check holds an answer against what the document says of it. Requests that the document does not have must be refused.
func (c *contract) check(r *http.Request, resp *http.Response, body []byte) error {
	template := c.path(r.URL.EscapedPath())
	operation, _ := c.at("paths", template, strings.ToLower(r.Method))
	if operation == nil {
		if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
			return fmt.Errorf("the document has no %s %s, and the answer is %d", r.Method, r.URL.Path, resp.StatusCode)
		}
		return c.validate("/components/schemas/Error", body)
	}
	keys := []string{"paths", template, strings.ToLower(r.Method), "responses", fmt.Sprint(resp.StatusCode)}
	described, _ := c.at(keys...)
	if described == nil {
		if resp.StatusCode < 400 {
			return fmt.Errorf("the document has no status %d for %s %s", resp.StatusCode, r.Method, template)
		}
		keys[4] = "default"
		described, _ = c.at(keys...)
	}
	if described == nil {
		return fmt.Errorf("the document has no default for %s %s", r.Method, template)
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	content, _ := c.at(append(keys, "content")...)
	if content == nil {
		if len(body) > 0 && resp.StatusCode < 400 && strings.HasPrefix(template, "/api/") {
			return fmt.Errorf("%s %s: %d has a body, and the document has none", r.Method, template, resp.StatusCode)
		}
		return nil
	}
	if _, ok := content.(map[string]any)[media]; !ok {
		return fmt.Errorf("%s %s: %d is %q, and the document has %v", r.Method, template, resp.StatusCode, media, content)
	}
	if media != "application/json" {
		return nil
	}
	_, pointer := c.at(append(keys, "content", media, "schema")...)
	return c.validate(pointer, body)
}

func (c *contract) validate(pointer string, body []byte) error {
	s, err := c.schema(pointer)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w in %.200q", err, body)
	}
	if err := s.Validate(v); err != nil {
		return fmt.Errorf("%s: %w in %.500s", pointer, err, body)
	}
	return nil
}

func TestEveryRouteIsDescribedAndEveryDescriptionIsARoute(t *testing.T) {
	c := readContract(t)
	described := map[string]map[string]any{}
	paths, _ := c.at("paths")
	for path, item := range paths.(map[string]any) {
		for method, op := range item.(map[string]any) {
			if method != "parameters" {
				described[strings.ToUpper(method)+" "+path] = op.(map[string]any)
			}
		}
	}
	a := &API{o: Options{Metrics: NewMetrics()}}
	for _, r := range a.Routes() {
		op, ok := described[r.Pattern]
		if !ok {
			t.Errorf("%s is not described", r.Pattern)
			continue
		}
		delete(described, r.Pattern)
		if op["x-role"] != string(r.Access) {
			t.Errorf("%s needs %s, and the document says %v", r.Pattern, r.Access, op["x-role"])
		}
		_, own := op["security"]
		if needsToken := r.Access != Public && r.Access != Machine; own == needsToken {
			t.Errorf("%s: the document's security does not fit %s", r.Pattern, r.Access)
		}
		for _, key := range []string{"operationId", "summary", "responses", "tags"} {
			if op[key] == nil {
				t.Errorf("%s has no %s", r.Pattern, key)
			}
		}
		c.parameters(t, r.Pattern, op)
	}
	for pattern := range described {
		t.Errorf("the document has %s, and nothing serves it", pattern)
	}
}

// parameters checks that the path's own are declared, and that every schema of the operation can be used.
func (c *contract) parameters(t *testing.T, pattern string, op map[string]any) {
	t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	declared := map[string]bool{}
	for _, keys := range [][]string{{"paths", path, "parameters"}, {"paths", path, strings.ToLower(method), "parameters"}} {
		list, _ := c.at(keys...)
		items, _ := list.([]any)
		for _, item := range items {
			m := item.(map[string]any)
			if ref, ok := m["$ref"].(string); ok {
				v, _ := c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
				m = v.(map[string]any)
			}
			if m["in"] == "path" {
				declared[m["name"].(string)] = true
			}
		}
	}
	for _, part := range strings.Split(path, "/") {
		if name := strings.Trim(part, "{}"); name != part && !declared[name] {
			t.Errorf("%s does not declare %s", pattern, name)
		}
	}
	for status := range op["responses"].(map[string]any) {
		content, pointer := c.at("paths", path, strings.ToLower(method), "responses", status, "content")
		types, _ := content.(map[string]any)
		for media := range types {
			if _, err := c.schema(pointer + "/" + strings.ReplaceAll(media, "/", "~1") + "/schema"); err != nil {
				t.Errorf("%s: %v", pattern, err)
			}
		}
	}
}

// TestTheSchemasHaveTheTypesFields keeps the document from forgetting a field, or inventing one.
func TestTheSchemasHaveTheTypesFields(t *testing.T) {
	c := readContract(t)
	for name, typ := range map[string]reflect.Type{
		"Layout": reflect.TypeFor[layout.Layout](), "Hints": reflect.TypeFor[layout.Hints](), "Outlook": reflect.TypeFor[plan.Outlook](),
		"OOB": reflect.TypeFor[registry.OOB](), "Live": reflect.TypeFor[registry.Live](), "LiveBoot": reflect.TypeFor[registry.LiveBoot](), "User": reflect.TypeFor[plan.User](), "File": reflect.TypeFor[plan.File](), "Network": reflect.TypeFor[plan.Network](),
		"Inventory": reflect.TypeFor[plan.Inventory](), "Booted": reflect.TypeFor[plan.Booted](), "NewOrder": reflect.TypeFor[newOrder](), "Order": reflect.TypeFor[registry.Order](),
		"Event": reflect.TypeFor[registry.Event](), "Image": reflect.TypeFor[imageView](), "Lease": reflect.TypeFor[registry.Lease](), "NewToken": reflect.TypeFor[newToken](),
		"TokenFields": reflect.TypeFor[registry.Token](), "Queue": reflect.TypeFor[queueView](), "Swarm": reflect.TypeFor[swarm.View](), "Rates": reflect.TypeFor[swarm.Rates](), "Error": reflect.TypeFor[refusal](),
	} {
		v, _ := c.at("components", "schemas", name)
		c.sameFields(t, name, v.(map[string]any), typ)
	}
	fields, _ := c.at("components", "schemas", "HostFields", "properties")
	host, _ := c.at("components", "schemas", "Host", "properties")
	all := map[string]any{}
	for _, m := range []any{fields, host} {
		for k, v := range m.(map[string]any) {
			all[k] = v
		}
	}
	c.sameFields(t, "Host", map[string]any{"properties": all}, reflect.TypeFor[registry.Host]())
}

func (c *contract) sameFields(t *testing.T, name string, schema map[string]any, typ reflect.Type) {
	t.Helper()
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
		if items, ok := schema["items"].(map[string]any); ok {
			schema = items
		}
	}
	properties, ok := schema["properties"].(map[string]any)
	if !ok || typ.Kind() != reflect.Struct {
		return
	}
	seen := map[string]bool{}
	for _, f := range reflect.VisibleFields(typ) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || key == "-" || !f.IsExported() {
			continue
		}
		p, there := properties[key].(map[string]any)
		if !there {
			t.Errorf("%s: the document has no %s", name, key)
			continue
		}
		seen[key] = true
		if p["$ref"] == nil {
			c.sameFields(t, name+"."+key, p, f.Type)
		}
	}
	for key := range properties {
		if !seen[key] {
			t.Errorf("%s: the document has %s, and the type has not", name, key)
		}
	}
}

func TestTheDocumentIsServedAsJSON(t *testing.T) {
	s := serve(t)
	a := s.do(t, call{path: "/openapi.json"})
	var doc struct {
		OpenAPI string `json:"openapi"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || doc.OpenAPI != "3.1.0" || a.status != 200 {
		t.Errorf("%d %.100s %v", a.status, a.body, err)
	}
}
