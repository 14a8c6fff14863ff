package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// picturesOf are all that a result gives something to draw for.
func picturesOf(ix *index) []picture {
	return slices.Concat(ix.barPictures(), ix.latencyPictures(), ix.growthPictures())
}

// Document writes dir/BENCHMARKS.md, and in dir/bench the result as JSON and the
// pictures as SVG and PNG. Everything is made before anything is written; each file
// is written beside its place and renamed into it, the page last, so that an
// interrupted run leaves whole files.
func Document(dir string, r *Result) error {
	r = numbersOnly(r)
	files, err := documentFiles(r)
	if err != nil {
		return err
	}
	pictures := filepath.Join(dir, "bench")
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		return fmt.Errorf("making the directory of the pictures: %w", err)
	}
	for _, f := range files {
		if err := replaceFile(filepath.Join(dir, f.name), f.data); err != nil {
			return err
		}
	}
	return removeOldPictures(pictures, files)
}

type documentFile struct {
	name string // under the directory of the document
	data []byte
}

func documentFiles(r *Result) ([]documentFile, error) {
	var files []documentFile
	for _, p := range picturesOf(newIndex(r)) {
		svg, err := p.svg()
		if err != nil {
			return nil, err
		}
		png, err := p.png()
		if err != nil {
			return nil, err
		}
		files = append(files, documentFile{"bench/" + p.name + ".svg", svg}, documentFile{"bench/" + p.name + ".png", png})
	}
	var b bytes.Buffer
	if err := WriteJSON(&b, r); err != nil {
		return nil, err
	}
	files = append(files, documentFile{"bench/result.json", bytes.Clone(b.Bytes())})
	b.Reset()
	if err := WriteMarkdown(&b, r, "bench"); err != nil {
		return nil, err
	}
	return append(files, documentFile{"BENCHMARKS.md", b.Bytes()}), nil
}

// replaceFile puts a file in its place, whole or not at all.
func replaceFile(name string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", name, err)
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// removeOldPictures removes the pictures of an earlier document that this one does not
// have: they would be taken for its own. Other files are not touched.
func removeOldPictures(dir string, files []documentFile) error {
	for _, pattern := range []string{"bars-*", "latency-*", "growth-*", "summary.*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return fmt.Errorf("looking for old pictures: %w", err)
		}
		for _, name := range found {
			ext := filepath.Ext(name)
			made := slices.ContainsFunc(files, func(f documentFile) bool { return strings.HasSuffix(f.name, "/"+filepath.Base(name)) })
			if made || ext != ".svg" && ext != ".png" {
				continue
			}
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("removing an old picture: %w", err)
			}
		}
	}
	return nil
}
