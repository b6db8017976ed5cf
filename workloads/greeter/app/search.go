package main

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

const (
	maxNeedleBytes = 4 << 10
	maxSearched    = 1 << 20 // of a file; the program itself is longer and holds no secret
)

// found is where a container holds a text, by name only: neither the text nor what stands around it is said.
type found struct {
	Environment []string `json:"environment"`
	Files       []string `json:"files"`
	Variables   int      `json:"variables_searched"`
	FilesRead   int      `json:"files_searched"`
}

// search looks for a text in the environment and in every file below root that this process can read. The kernel's file systems
// are left out: what they say of this process is its environment and the memory that holds the question.
func search(root string, environment []string, needle []byte) found {
	seen := found{Environment: []string{}, Files: []string{}}
	for _, one := range environment {
		name, value, _ := strings.Cut(one, "=")
		seen.Variables++
		if bytes.Contains([]byte(value), needle) {
			seen.Environment = append(seen.Environment, name)
		}
	}
	kernel := map[string]bool{filepath.Join(root, "proc"): true, filepath.Join(root, "sys"): true, filepath.Join(root, "dev"): true}
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if entry.IsDir() {
			if kernel[path] {
				return filepath.SkipDir
			}
			return nil
		}
		// A mounted Secret is a link to a file in a hidden folder; that file is met as well.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer file.Close()
		text, _ := io.ReadAll(io.LimitReader(file, maxSearched))
		seen.FilesRead++
		if bytes.Contains(text, needle) {
			seen.Files = append(seen.Files, path)
		}
		return nil
	})
	sort.Strings(seen.Files)
	return seen
}

func answerSearch(w http.ResponseWriter, r *http.Request, root string) {
	needle, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNeedleBytes))
	if err != nil || len(needle) == 0 || r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, http.StatusBadRequest, map[string]string{"error": "POST the text that is looked for"})
		return
	}
	answer(w, http.StatusOK, search(root, os.Environ(), needle))
}
