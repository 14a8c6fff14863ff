package epmd

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

// A request that is decoded can be encoded, and is the same when it is decoded
// again.
func FuzzRequest(f *testing.F) {
	for _, exchange := range captured(f) {
		f.Add(exchange.request)
	}
	for _, seed := range []string{"\x00\x01n", "\x00\x05zfoo\x00", "\x0b\xf4z", "\x00\x00", "\x00\x03h\xff\x00", "\xff\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		request, err := ReadRequest(r)
		if err != nil {
			checkError(t, err)
			return
		}
		if size := len(b) - r.Len(); size != lengthSize+int(b[0])<<8+int(b[1]) {
			t.Fatalf("read %d bytes of %q", size, b)
		}
		again, err := AppendRequest(nil, request)
		if alive, ok := request.(AliveRequest); ok && alive.validate() != nil {
			if !errors.Is(err, ErrInvalidNode) {
				t.Fatalf("encoding %#v: error %v", request, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("encoding %#v: %v", request, err)
		}
		if decoded, err := ReadRequest(bytes.NewReader(again)); err != nil || !reflect.DeepEqual(decoded, request) {
			t.Fatalf("%#v is encoded as %q and decoded as %#v, %v", request, again, decoded, err)
		}
	})
}

// A response that is decoded is encoded as the very bytes that were read.
func FuzzResponse(f *testing.F) {
	for _, exchange := range captured(f) {
		f.Add(exchange.response)
	}
	for _, seed := range []string{"y\x00\x00\x01", "v\x01\x00\x00\x00\x63", "w\x01", "w\x00", "i\x00\x00\x2a", "i\x01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		reencode(t, b, ReadAliveResponse, func(r AliveResponse) []byte { return r.Append(nil) })
		reencode(t, b, ReadPortResponse, func(r PortResponse) []byte { return r.Append(nil) })
		reencode(t, b, ReadHandoverResponse, func(r HandoverResponse) []byte { return r.Append(nil) })
	})
}

func reencode[T any](t *testing.T, b []byte, read func(io.Reader) (T, error), encode func(T) []byte) {
	r := bytes.NewReader(b)
	response, err := read(r)
	if err != nil {
		checkError(t, err)
		return
	}
	if taken := b[:len(b)-r.Len()]; !bytes.Equal(encode(response), taken) {
		t.Fatalf("%q is decoded as %#v, which is encoded as %q", taken, response, encode(response))
	}
}

// A listing that is decoded is the same when it is encoded and decoded again.
func FuzzListing(f *testing.F) {
	for _, exchange := range captured(f) {
		f.Add(exchange.response)
	}
	for _, seed := range []string{
		"\x00\x00\x11\x11",
		"\x00\x00\x11\x11name a at port 1\n",
		"\x00\x00\x11\x11active name     <b> at port 2, fd = 5\n\x00old/unused name <b>, port = 2, fd = 5 \n\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		relist(t, b, ReadNamesResponse, func(r NamesResponse) []byte { return r.Append(nil) })
		relist(t, b, ReadDumpResponse, func(r DumpResponse) []byte { return r.Append(nil) })
	})
}

func relist[T any](t *testing.T, b []byte, read func(io.Reader) (T, error), encode func(T) []byte) {
	response, err := read(bytes.NewReader(b))
	if err != nil {
		checkError(t, err)
		return
	}
	if again, err := read(bytes.NewReader(encode(response))); err != nil || !reflect.DeepEqual(again, response) {
		t.Fatalf("%#v is encoded as %q and decoded as %#v, %v", response, encode(response), again, err)
	}
}

func checkError(t *testing.T, err error) {
	if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.Is(err, ErrMalformed) {
		t.Fatalf("error %v is neither an end nor ErrMalformed", err)
	}
}
