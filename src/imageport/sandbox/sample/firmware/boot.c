/* The sample's boot loader: proves that firmware found disk, partition and fallback path.
 *
 * Real firmware with empty variables starts \EFI\Boot\bootx64.efi. This program checks that it
 * came from a volume that holds the Windows boot store, says so on the console, powers off. */
#include <efi.h>
#include <efilib.h>

static BOOLEAN has_file(EFI_FILE_HANDLE root, CHAR16 *path)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = uefi_call_wrapper(root->Open, 5, root, &file, path, EFI_FILE_MODE_READ, 0);

    if (EFI_ERROR(status))
        return FALSE;
    uefi_call_wrapper(file->Close, 1, file);
    return TRUE;
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    EFI_LOADED_IMAGE *loaded = NULL;
    EFI_FILE_HANDLE root = NULL;

    InitializeLib(image, table);
    uefi_call_wrapper(table->BootServices->HandleProtocol, 3, image, &LoadedImageProtocol,
                      (VOID **)&loaded);
    if (loaded != NULL)
        root = LibOpenRoot(loaded->DeviceHandle);
    Print(L"\r\nIMAGEPORT-SAMPLE: firmware started the fallback loader\r\n");
    Print(L"IMAGEPORT-SAMPLE: boot store %s\r\n",
          root != NULL && has_file(root, L"\\EFI\\Microsoft\\Boot\\BCD") ? L"found" : L"MISSING");
    Print(L"IMAGEPORT-SAMPLE: power off\r\n");
    uefi_call_wrapper(table->RuntimeServices->ResetSystem, 4, EfiResetShutdown, EFI_SUCCESS, 0,
                      NULL);
    return EFI_SUCCESS;
}
