/* The program that stands in for every Windows program that first boot calls.
 *
 * It notes its command line in calls.txt beside itself, runs NAME.cmd beside itself with the same
 * arguments, if there is one, and ends with its exit code. As ping.exe it notes nothing, for it is
 * a clock: "-n N" takes N times 20 ms.
 */
typedef unsigned short wide;
typedef unsigned int u32;
typedef void *handle;
#define API __attribute__((ms_abi))

/* The loader fills this in; same order as in stand_in.py. */
struct imports {
    wide *(API *GetCommandLineW)(void);
    u32 (API *GetModuleFileNameW)(handle, wide *, u32);
    handle (API *CreateFileW)(const wide *, u32, u32, void *, u32, u32, handle);
    int (API *WriteFile)(handle, const void *, u32, u32 *, void *);
    int (API *CloseHandle)(handle);
    u32 (API *GetFileAttributesW)(const wide *);
    int (API *CreateProcessW)(const wide *, wide *, void *, void *, int, u32, void *, const wide *, void *, void *);
    u32 (API *WaitForSingleObject)(handle, u32);
    int (API *GetExitCodeProcess)(handle, u32 *);
    void (API *Sleep)(u32);
    void (API *ExitProcess)(u32);
};
#define WINDOWS ((struct imports *)0x140001000ull)

static u32 length(const wide *text) { u32 n = 0; while (text[n]) n++; return n; }

static wide *append(wide *end, const wide *text) { while (*text) *end++ = *text++; *end = 0; return end; }

static const wide *arguments(const wide *line) {
    wide stop = *line == '"' ? '"' : ' ';
    if (stop == '"') line++;
    while (*line && *line != stop) line++;
    if (*line == '"') line++;
    while (*line == ' ') line++;
    return line;
}

static void note(const wide *folder, const wide *name, const wide *rest) {
    static wide path[600];
    static char line[2000];
    u32 n = 0, written;
    append(append(path, folder), L"calls.txt");
    while (*name && *name != '.' && n < 100) line[n++] = (char)*name++;
    line[n++] = ' ';
    while (*rest && n < 1990) line[n++] = (char)*rest++;
    line[n++] = '\n';
    /* FILE_APPEND_DATA, shared for all, OPEN_ALWAYS */
    handle file = WINDOWS->CreateFileW(path, 4, 7, 0, 4, 0x80, 0);
    WINDOWS->WriteFile(file, line, n, &written, 0);
    WINDOWS->CloseHandle(file);
}

void API start(void) {
    static wide self[600], folder[600], script[600], line[2000];
    static unsigned char startup[104] = {104}, process[24];
    const wide *rest = arguments(WINDOWS->GetCommandLineW());
    WINDOWS->GetModuleFileNameW(0, self, 500);
    append(folder, self);
    u32 name = length(self);
    while (name && self[name - 1] != '\\') name--;
    folder[name] = 0;
    if ((self[name] | 32) == 'p' && (self[name + 1] | 32) == 'i' && self[name + 4] == '.') {
        const wide *number = rest;
        u32 seconds = 0;
        while (*number && !(*number >= '0' && *number <= '9')) number++;
        while (*number >= '0' && *number <= '9') seconds = seconds * 10 + (*number++ - '0');
        WINDOWS->Sleep(seconds * 20);
    } else {
        note(folder, self + name, rest);
    }
    wide *end = append(script, self) - 4;
    append(end, L".cmd");
    if (WINDOWS->GetFileAttributesW(script) == 0xffffffff) WINDOWS->ExitProcess(0);
    end = append(append(append(line, L"cmd.exe /d /c \"\""), script), L"\" ");
    append(append(end, rest), L"\"");
    u32 code = 9009;
    if (WINDOWS->CreateProcessW(0, line, 0, 0, 1, 0, 0, 0, startup, process)) {
        handle child = *(handle *)process;
        WINDOWS->WaitForSingleObject(child, 0xffffffff);
        WINDOWS->GetExitCodeProcess(child, &code);
    }
    WINDOWS->ExitProcess(code);
}
